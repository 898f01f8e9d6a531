"""How Alembic runs here: always inside the transaction that gateway.state.database hands in."""

from alembic import context

from gateway.state.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
