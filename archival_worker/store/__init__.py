"""The archive's tables: one transaction per batch, migrations, dead letters."""
