"""Questions about the log: what is asked, the SQL that answers it, and the answer."""
