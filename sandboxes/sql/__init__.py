"""The SQL sandbox: questions to an SQLite database that nothing may write to."""
