"""Conversations with record systems: the sandbox, and a real EHRbase where there is one."""
