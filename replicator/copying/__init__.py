"""Source tables → their copies in the buckets, woven into the stream that goes on meanwhile.

Two halves that meet in the log. `Copier` goes beside the stream: it reads chunks of the tables that are
wanted and writes marks around them (wal/window.py says why). `Weaver` stands in the main path: it lets
changes pass by, and where a high mark passes, it puts the rows of the chunk in its place, so that they are
appended with that transaction and the copy's progress is committed with them. Killed anywhere, the copy goes
on from the last committed chunk. What both know is in `Copies`.

The same way round goes everything that is noticed outside the log and must be acted on in its order: a
table that is gone, or changed without being written to. The notice is written into the log as a mark, and
acted on when it comes back, after every change that stands before it.
"""
