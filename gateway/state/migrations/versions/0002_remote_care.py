"""Identities, claims, desired documents and commands of nodes; what pictures show; boots whose clock became right.

Revision ID: 0002
Revises: 0001
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("boots", sa.Column("synced", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("events", sa.Column("boot", sa.Text(), nullable=True))
    op.create_table(
        "pictures",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("withheld", sa.Boolean(), nullable=False),
        sa.Column("captured_us", sa.BigInteger(), nullable=False),
        sa.Column("cleared_us", sa.BigInteger(), nullable=True),
        sa.Column("cleared_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sha256", "node"),
    )
    op.create_table(
        "claims",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("used_us", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("claims_node", "claims", ["node"], unique=False)
    op.create_table(
        "certificates",
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("issued_us", sa.BigInteger(), nullable=False),
        sa.Column("not_after_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("certificates_node", "certificates", ["node"], unique=False)
    op.create_table(
        "node_tokens",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("issued_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("node_tokens_node", "node_tokens", ["node"], unique=False)
    op.create_table(
        "desired",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("reported_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("node", "revision"),
    )
    op.create_table(
        "commands",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("issued_us", sa.BigInteger(), nullable=False),
        sa.Column("issued_by", sa.Text(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("media", sa.Text(), nullable=True),
        sa.Column("answered_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("commands_node", "commands", ["node", "issued_us"], unique=False)
    op.create_index("commands_state", "commands", ["state"], unique=False)
    op.create_table(
        "rotating_tags",
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("exponent", sa.Integer(), nullable=False),
        sa.Column("zero_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tag"),
    )
    _tell_of_pictures()


def _tell_of_pictures() -> None:
    """What a picture shows is in its event from now on. Those of before: nothing looked at them, and a person may say `clear`.

    Their events get the new fields as an event without them has them, so that one that is sent again is known for the same.
    """
    connection = op.get_bind()
    events = sa.table("events", *map(sa.column, ("id", "node", "device", "type", "time_us", "body")))
    pictures = sa.table("pictures", *map(sa.column, ("sha256", "node", "device", "content", "withheld", "captured_us")))
    told: set[tuple[str, str]] = set()
    for row in connection.execute(sa.select(events).where(events.c.type == "media_captured").order_by(events.c.id)).all():
        said = json.loads(row.body)
        if "content" in said:
            continue
        said |= {"camera_offset_s": None, "burst": None, "content": "unclassified", "confidence": None, "withheld": False}
        body = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
        connection.execute(sa.update(events).where(events.c.id == row.id).values(body=body))
        if (said["media"], row.node) not in told:
            told.add((said["media"], row.node))
            connection.execute(
                sa.insert(pictures).values(
                    sha256=said["media"], node=row.node, device=row.device, content="unclassified", withheld=False,
                    captured_us=row.time_us,
                )
            )  # fmt: skip
