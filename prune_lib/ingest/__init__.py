"""Any click log becomes a clean table of sessions: forms, reading, rules, sessions, the job."""
