"""People and what they are told: contacts, pages, answers, the delivery ledger; traps' visits, watch tags, people flow.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # "delivered" was two things: that the other side took it, and that somebody saw it. From now on the first is "sent".
    with op.batch_alter_table("notifications") as batch_op:
        batch_op.alter_column("delivered_us", new_column_name="sent_us")
    op.execute("UPDATE notifications SET state = 'sent' WHERE state = 'delivered'")
    op.create_table(
        "contacts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), server_default=sa.text("'ja'"), nullable=False),
        sa.Column("quiet", sa.Text(), nullable=True),
        sa.Column("away_until_us", sa.BigInteger(), nullable=True),
        sa.Column("deputy", sa.Text(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("removed_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "digest_pages",
        sa.Column("notification", sa.Text(), nullable=False),
        sa.Column("page", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("notification", "page"),
    )
    with op.batch_alter_table("digest_pages", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_digest_pages_page"), ["page"], unique=False)

    op.create_table(
        "inbox",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("done_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.create_index("inbox_done", ["done_us"], unique=False)

    op.create_table(
        "invitations",
        sa.Column("code_sha256", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("code_sha256"),
    )
    op.create_table(
        "pages",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("group_key", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("needed", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("opened_us", sa.BigInteger(), nullable=False),
        sa.Column("stepped_us", sa.BigInteger(), nullable=True),
        sa.Column("answered_us", sa.BigInteger(), nullable=True),
        sa.Column("due_us", sa.BigInteger(), nullable=True),
        sa.Column("changed", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("closed_us", sa.BigInteger(), nullable=True),
        sa.Column("memory", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("pages", schema=None) as batch_op:
        batch_op.create_index("pages_group", ["route", "group_key", "state"], unique=False)
        batch_op.create_index("pages_opened", ["opened_us"], unique=False)
        batch_op.create_index("pages_state", ["state", "due_us"], unique=False)

    op.create_table(
        "quotas",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("limit_", sa.Integer(), nullable=True),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("read_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("channel"),
    )
    op.create_table(
        "recounts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("area", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("reckoned", sa.Integer(), nullable=True),
        sa.Column("who", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("recounts", schema=None) as batch_op:
        batch_op.create_index("recounts_area", ["area", "at_us"], unique=False)

    op.create_table(
        "silences",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("match", sa.Text(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "town_modes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "visits",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("visits", schema=None) as batch_op:
        batch_op.create_index("visits_device", ["node", "device", "at_us"], unique=False)

    op.create_table(
        "watched",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("homes", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "addresses",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("proved_us", sa.BigInteger(), nullable=True),
        sa.Column("tested_us", sa.BigInteger(), nullable=True),
        sa.Column("heard_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["contact"],
            ["contacts.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("channel", "address", name="addresses_identity"),
    )
    with op.batch_alter_table("addresses", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_addresses_contact"), ["contact"], unique=False)

    op.create_table(
        "answers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("page", sa.Text(), nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("notification", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["page"],
            ["pages.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("answers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_answers_page"), ["page"], unique=False)

    op.create_table(
        "captures",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("alert", sa.Text(), nullable=True),
        sa.Column("sprung_us", sa.BigInteger(), nullable=True),
        sa.Column("visit", sa.Text(), nullable=False),
        sa.Column("species", sa.Text(), nullable=True),
        sa.Column("sex", sa.Text(), nullable=True),
        sa.Column("weight_kg", sa.Float(), nullable=True),
        sa.Column("disposal", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("opened_us", sa.BigInteger(), nullable=False),
        sa.Column("reminded_us", sa.BigInteger(), nullable=True),
        sa.Column("completed_us", sa.BigInteger(), nullable=True),
        sa.Column("completed_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["visit"],
            ["visits.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "memberships",
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["contact"],
            ["contacts.id"],
        ),
        sa.PrimaryKeyConstraint("team", "contact"),
    )
    op.create_table(
        "page_alerts",
        sa.Column("page", sa.Text(), nullable=False),
        sa.Column("alert", sa.Text(), nullable=False),
        sa.Column("joined_us", sa.BigInteger(), nullable=False),
        sa.Column("told_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["alert"],
            ["alerts.id"],
        ),
        sa.ForeignKeyConstraint(
            ["page"],
            ["pages.id"],
        ),
        sa.PrimaryKeyConstraint("page", "alert"),
    )
    with op.batch_alter_table("page_alerts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_page_alerts_alert"), ["alert"], unique=False)

    op.create_table(
        "search_cases",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("watched", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_us", sa.BigInteger(), nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("renewed_us", sa.BigInteger(), nullable=False),
        sa.Column("page", sa.Text(), nullable=True),
        sa.Column("helpers_page", sa.Text(), nullable=True),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("asked_us", sa.BigInteger(), nullable=True),
        sa.Column("counted_us", sa.BigInteger(), nullable=True),
        sa.Column("told_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("forgotten_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["watched"],
            ["watched.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("search_cases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_search_cases_watched"), ["watched"], unique=False)
        batch_op.create_index(
            "search_cases_open",
            ["watched"],
            unique=True,
            sqlite_where=sa.text("state IN ('open', 'paused')"),
            postgresql_where=sa.text("state IN ('open', 'paused')"),
        )

    op.create_table(
        "tags",
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("watched", sa.Text(), nullable=False),
        sa.Column("enrolled_us", sa.BigInteger(), nullable=False),
        sa.Column("enrolled_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["watched"],
            ["watched.id"],
        ),
        sa.PrimaryKeyConstraint("tag"),
    )
    with op.batch_alter_table("tags", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tags_watched"), ["watched"], unique=False)

    op.create_table(
        "capture_photos",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("capture", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("added_us", sa.BigInteger(), nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["capture"],
            ["captures.id"],
        ),
        sa.PrimaryKeyConstraint("sha256"),
    )
    with op.batch_alter_table("capture_photos", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_capture_photos_capture"), ["capture"], unique=False)

    op.create_table(
        "search_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("case", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["case"],
            ["search_cases.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("search_changes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_search_changes_case"), ["case"], unique=False)

    op.create_table(
        "search_sightings",
        sa.Column("case", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["case"],
            ["search_cases.id"],
        ),
        sa.PrimaryKeyConstraint("case", "node", "device"),
    )
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("facts", sa.Text(), server_default=sa.text("'{}'"), nullable=False))
        batch_op.add_column(sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False))
        batch_op.add_column(sa.Column("shelved_until_us", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("suppressed_by", sa.Text(), nullable=True))
        batch_op.create_index("alerts_since", ["since_us"], unique=False)

    with op.batch_alter_table("notifications", schema=None) as batch_op:
        batch_op.add_column(sa.Column("page", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("kind", sa.Text(), server_default=sa.text("'alert'"), nullable=False))
        batch_op.add_column(sa.Column("address", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("channel", sa.Text(), server_default=sa.text("'webhook'"), nullable=False))
        batch_op.add_column(sa.Column("failover_us", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("failed_over_from", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("only_by", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("intent_us", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("possibly_twice", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("provider_id", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("seen_us", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("answered_us", sa.BigInteger(), nullable=True))
        batch_op.alter_column("alert", existing_type=sa.TEXT(), nullable=True)
        batch_op.create_index(batch_op.f("ix_notifications_page"), ["page"], unique=False)
        batch_op.create_index("notifications_created", ["created_us"], unique=False)
        batch_op.create_index("notifications_provider", ["channel", "provider_id"], unique=False)
        batch_op.create_index("notifications_stood_in", ["failed_over_from"], unique=False)
        batch_op.create_foreign_key("notifications_page", "pages", ["page"], ["id"])

    with op.batch_alter_table("pictures", schema=None) as batch_op:
        batch_op.add_column(sa.Column("species", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("confirmed_content", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("confirmed_species", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("confirmed_us", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("confirmed_by", sa.Text(), nullable=True))
