"""Random changes, visits, losses and compactions, after which phones hold what a SELECT gives their users."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.fixtures.children import Child
from tests.real_client.clinic import Held, ServedClinic
from tests.real_client.phones import Phone

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]

_STEPS = 100
#: How often all phones are looked at.
_EVERY = 20
#: Somebody sees their own record, the records in whose full name they stand, and all notes. A record may be
#: theirs in both ways, and is one bucket all the same.
_RULES = json.dumps(
    {
        "bucket_definitions": {
            "record": {
                "parameters": [
                    "SELECT request.user_id() AS patient",
                    "SELECT id AS patient FROM users WHERE full_name = request.user_id()",
                ],
                "data": [
                    "SELECT * FROM users WHERE id = bucket.patient",
                    "SELECT * FROM vital_signs WHERE patient_id = bucket.patient",
                    "SELECT * FROM lab_results WHERE patient_id = bucket.patient",
                ],
            },
            "notes": {"priority": 1, "data": ["SELECT * FROM medical_records"]},
        }
    }
)
_PATIENT = "(SELECT id FROM users ORDER BY random() LIMIT 1)"
_SOME = "id IN (SELECT id FROM {0} ORDER BY random() LIMIT {1})"
_CHANGES = (
    f"INSERT INTO vital_signs (patient_id, notes) SELECT {_PATIENT}, n FROM generate_series(1, {{1}}) n",
    f"INSERT INTO lab_results (patient_id, test_name, result_value) VALUES ({_PATIENT}, 'K', '{{1}}')",
    "INSERT INTO medical_records (record_type, title) VALUES ('note', 'number {1}')",
    f"UPDATE vital_signs SET notes = 'changed {{1}}' WHERE {_SOME.replace('{0}', 'vital_signs')}",
    f"UPDATE vital_signs SET patient_id = {_PATIENT} WHERE {_SOME.replace('{0}', 'vital_signs')}",
    f"UPDATE lab_results SET id = gen_random_uuid() WHERE {_SOME.replace('{0}', 'lab_results')}",
    f"DELETE FROM vital_signs WHERE {_SOME.replace('{0}', 'vital_signs')}",
    f"DELETE FROM medical_records WHERE {_SOME.replace('{0}', 'medical_records')}",
    f"UPDATE users SET full_name = {_PATIENT}::text WHERE id = {_PATIENT}",
    "UPDATE users SET full_name = id::text",
    "UPDATE users SET full_name = NULL",
    "TRUNCATE lab_results",
)


@dataclass
class Scene:
    clinic: ServedClinic
    serving: Child
    phones: dict[str, Phone]
    #: By user, the way their phone connects.
    transports: dict[str, str]
    away: set[str]

    def step(self, rng: random.Random) -> str:
        """Do something; what it was."""
        does = rng.choices([self.change, self.visit, self.write, self.lose, self.compact], [12, 4, 3, 1, 1])[
            0
        ]
        return does(rng)

    def change(self, rng: random.Random) -> str:
        statement = "; ".join(rng.choices(_CHANGES, k=rng.choice([1, 1, 3])))
        self.clinic.database.execute(
            f"DO $$ BEGIN {statement.replace('{1}', str(rng.randint(1, 20)))}; END $$"
        )
        return statement

    def visit(self, rng: random.Random) -> str:
        user = rng.choice(sorted(self.phones))
        if user in self.away:
            self.phones[user].connect(self.transports[user])
        else:
            self.phones[user].disconnect()
        self.away ^= {user}
        return f"{user} is {'away' if user in self.away else 'back'}"

    def write(self, rng: random.Random) -> str:
        user = rng.choice(sorted(self.phones))
        some = "SELECT id FROM vital_signs ORDER BY id LIMIT 3"
        written = f"written on a phone {rng.randint(1, 1000)}"
        self.phones[user].execute(f"UPDATE vital_signs SET notes = ? WHERE id IN ({some})", written)
        return f"{user} writes"

    def lose(self, _: random.Random) -> str:
        self.serving.kill()
        self.serving = self.clinic.serve()
        return "serving was killed"

    def compact(self, _: random.Random) -> str:
        self.clinic.database.execute(
            "UPDATE replicator.changes SET recorded_at = recorded_at - interval '1 hour'"
        )
        assert self.clinic.ask("compact", "--all") == 0
        return "compacted"

    def look(self) -> None:
        """Everybody is back, and holds what they should."""
        for user in sorted(self.away):
            self.phones[user].connect(self.transports[user])
        self.away.clear()
        for phone in self.phones.values():
            phone.until("SELECT count(*) FROM ps_crud", [[0]])
        for user, phone in self.phones.items():
            self.clinic.become_equal_on(phone, self.expected(user))

    def expected(self, user: str) -> Held:
        seen = f"(SELECT id FROM users WHERE '{user}' IN (id::text, full_name))"
        return self.clinic.selected(
            {
                "users": f"id IN {seen}",
                "vital_signs": f"patient_id IN {seen}",
                "lab_results": f"patient_id IN {seen}",
                "medical_records": "true",
            }
        )


async def test_phones_hold_what_a_select_gives(
    make_clinic: Callable[..., ServedClinic], rng: random.Random
) -> None:
    clinic = make_clinic(rules=_RULES)
    await clinic.build(patients=3)
    clinic.measure("at first", times=3)
    clinic.database.execute("ALTER TABLE medical_records ALTER COLUMN patient_id DROP NOT NULL")
    _, serving = clinic.start()
    users = clinic.people()
    scene = Scene(
        clinic,
        serving,
        {user: clinic.phone(user) for user in users},
        dict(zip(users, ["http", "ndjson", "websocket"], strict=True)),
        set(users),
    )
    done: list[str] = []
    for number in range(1, _STEPS + 1):
        done.append(scene.step(rng))
        if number % _EVERY == 0:
            try:
                scene.look()
            except AssertionError as error:
                raise AssertionError("\n".join([*done, str(error)])) from None
