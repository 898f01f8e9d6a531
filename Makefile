# satomori: every task of a developer, of the demo and of CI.
#
# Needs GNU make >= 4.3, git and Python >= 3.11; the rest each target installs itself, into .venv.
# Only a target's own product goes to stdout (`make demo ARGS="--json" | jq` works); set-up talks on stderr.

# Arguments passed through to the program that a target runs, e.g. make test ARGS="-k outbox -x"
ARGS ?=
# The Python to make .venv with; found when not given, e.g. make test PYTHON=python3.13
PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin
CODE := edge gateway simulators dashboards/grafana tests

SHELL := /bin/sh
.SHELLFLAGS := -euc
MAKEFLAGS += --no-print-directory
.SILENT:
.DEFAULT_GOAL := help

# A stray one of these would put other packages, or another place, in front of .venv.
unexport PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_HASHES PIP_NO_DEPS
# Each of the many processes of a demo or a test would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# --- Set-up -----------------------------------------------------------------------------------------
# $(call setup,demo) or $(call setup,dev) brings .venv to what requirements/<it>.txt locks. It compares
# what .venv was made from with what is wanted now, by content, so that an interrupted, moved, copied or
# outdated .venv is noticed: each stamp is written last. (Below, make turns each $$ into one $.)
setup = sh -euc "$$SETUP" setup $(1) >&2

define SETUP
set_name=$$1
say() { printf 'satomori: %s\n' "$$*"; }
die() { say "$$*"; exit 1; }

# One set-up at a time in this folder; the lock goes when this shell does.
if command -v flock >/dev/null; then exec 9<Makefile; flock 9; fi

# Of each candidate: its path outside of any venv, version and word size; nothing where it is too old. Links are followed: what
# leads to one Python, as an activated .venv does, is one Python.
describe='import os, sys
if sys.version_info < (3, 11): sys.exit(1)
exe = getattr(sys, "_base_executable", None) or sys.executable
print(os.path.realpath(exe), "%d.%d" % sys.version_info[:2], sys.maxsize.bit_length() + 1, sep="|")'
found=
for name in $${WANTED_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    this=$$("$$name" -c "$$describe" 2>/dev/null) || continue
    [ -n "$$found" ] || found=$$this
    # The first that can make a venv wins; without one, the first of all.
    if "$${this%%|*}" -c 'import venv; from ensurepip import bootstrap' 2>/dev/null; then found=$$this; break; fi
done
if [ -z "$$found" ]; then
    if [ -n "$$WANTED_PYTHON" ]; then die "PYTHON=$$WANTED_PYTHON is not a Python >= 3.11 that runs."; fi
    die "no Python >= 3.11 found. On Debian 12+, Ubuntu 24.04+ or Raspberry Pi OS 12+:" \
        "sudo apt-get install python3 python3-venv"
fi
python=$${found%%|*}
version=$${found#*|}
version=$${version%%|*}

made_of="$$PWD/$$VENV|$$found"
wanted=$$(cat requirements/demo.txt requirements/dev.txt pyproject.toml | cksum)
stamp() { cat "$$VENV/.satomori-$$1" 2>/dev/null || true; }

if [ "$$(stamp venv)" = "$$made_of" ] && "$$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    # dev holds all that demo does, in the same versions.
    if [ "$$(stamp "$$set_name")" = "$$wanted" ] || [ "$$(stamp dev)" = "$$wanted" ]; then exit 0; fi
else
    if [ -e "$$VENV" ]; then say "$$VENV is unfinished, moved or from another Python: making it again"; fi
    if ! "$$python" -c 'import venv; from ensurepip import bootstrap' 2>/dev/null; then
        package=python$$version-venv
        fix="apt-get install -y --no-install-recommends $$package"
        as_root=
        if [ "$$(id -u)" -ne 0 ]; then
            # Ask for a password only where somebody can type one.
            as_root='sudo -n'
            if [ -t 0 ]; then as_root=sudo; fi
            command -v sudo >/dev/null || as_root=none
        fi
        command -v apt-get >/dev/null || die "$$python cannot make a venv (no ensurepip): install its venv package."
        if [ "$$as_root" = none ]; then die "$$python lacks the venv module. Run this once as root: $$fix"; fi
        say "$$python lacks the venv module: installing $$package"
        quiet_apt="$$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120"
        $$quiet_apt install -y --no-install-recommends "$$package" ||
            { $$quiet_apt update && $$quiet_apt install -y --no-install-recommends "$$package"; } ||
            die "could not install $$package. Run this once: sudo $$fix"
    fi
    say "making $$VENV with $$python ($$version)"
    rm -rf "$$VENV"
    "$$python" -m venv "$$VENV"
    printf '%s\n' "$$made_of" >"$$VENV/.satomori-venv"
fi

say "installing requirements/$$set_name.txt (some minutes the first time on a Pi)"
rm -f "$$VENV/.satomori-demo" "$$VENV/.satomori-dev"
pip="$$VENV/bin/python -m pip --quiet"
$$pip install --require-hashes --requirement "requirements/$$set_name.txt"
$$pip install --no-deps --no-build-isolation --editable .
printf '%s\n' "$$wanted" >"$$VENV/.satomori-$$set_name"
endef
export SETUP VENV
export WANTED_PYTHON = $(PYTHON)

# --- Targets ----------------------------------------------------------------------------------------
.PHONY: help demo web wheel api grafana pictures test check format bench bench-edge soak lock clean

help: ## show this list
	echo 'make TARGET [ARGS="..."] [PYTHON=python3.X]'
	sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '  %-11s %s\n' "$$name" "$$what"; done

demo: ## set everything up and run it, e.g. ARGS="--for 30 --json"
	$(call setup,demo)
	$(WEB) >&2
	exec $(BIN)/satomori-sim demo $(ARGS)

# The pages: Node from .venv, its packages from the lock. Quick where nothing has changed.
WEB = $(BIN)/python hatch_build.py
web: ## build the pages in dashboards/web
	$(call setup,demo)
	$(WEB)

wheel: ## make dist/*.whl, for a Pi or a gateway, with the pages in it
	$(call setup,demo)
	$(BIN)/python -m hatchling build -t wheel

api: ## describe the API anew for the pages, after a change of a route
	$(call setup,demo)
	$(BIN)/python -m gateway.api.openapi >dashboards/web/openapi.json.new
	mv dashboards/web/openapi.json.new dashboards/web/openapi.json

grafana: ## write Grafana's dashboards anew, after a change of them
	$(call setup,dev)
	$(BIN)/python -m dashboards.grafana

pictures: ## take the pictures in docs/ anew: people's walks, the demo
	$(call setup,dev)
	sh .ci/services >&2
	$(WEB) >&2
	SATOMORI_PICTURES=docs $(BIN)/python -m pytest --numprocesses=0 tests/walks $(ARGS)
	exec $(BIN)/python -m simulators.pictures

test: ## run all checks and tests with real servers, e.g. ARGS="-k outbox"
	$(call setup,dev)
	sh .ci/services >&2
	$(MAKE) check
	$(WEB) >&2
	$(if $(ARGS),,sh .ci/in-memory) $(PYTEST) $(ARGS)$(if $(ARGS),, || $(ONCE_MORE))
	$(if $(ARGS),,SATOMORI_STATE=postgresql sh .ci/in-memory $(PYTEST) $(STATE_TESTS))

# Three on two cores: half of what a worker does is waiting, for a disk, a broker, a browser, a second to pass. Four took as long.
PYTEST = $(BIN)/python -m pytest --numprocesses=3 --dist=worksteal

# What failed beside two others on two cores, with real browsers and brokers, is asked once more by itself, and fails when it fails
# again. Both times are in the output: who passes only alone is a defect of the test, or of ours, to be looked into.
ONCE_MORE = sh .ci/in-memory $(BIN)/python -m pytest --last-failed --last-failed-no-failures=none --maxfail=1

# The heart once more with its state in PostgreSQL: of a record, pipeline, watch, pages and delivery; of people, contacts,
# consent, search, erasure, accounts and the trail; of nodes, claims and orders; and of the API what writes most. Not here, for the same SQL is
# above: what only reads, what is about a channel's own protocol, and what is long for another reason (files, other processes, servers).
STATE_TESTS = $(addprefix tests/gateway/,accounts audit contacts flow keeping traps \
	$(addprefix api/test_,api_alerts.py api_contacts.py api_erasures.py api_search.py api_silences.py api_traps.py) \
	$(addprefix mimamori/test_,consent.py retention.py search.py) \
	$(addprefix nodes/test_,claims.py commands.py desired.py expected.py renewals.py) \
	$(addprefix notify/test_,deliver.py deliver_people.py deliver_stuck.py group_commit.py queue.py) \
	$(addprefix test_,hostile_node.py inbox.py installations.py migrations_with_rows.py own.py paging.py paging_gaps.py pipeline.py \
	state.py state_copy.py watch.py watch_levels.py watch_together.py))

check: ## lint, types, import rules, catalogues, known weaknesses
	$(call setup,dev)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(WEB) check >&2
	$(BIN)/python -m pytest --quiet tests/gateway/words/test_catalogues.py
	$(BIN)/python .ci/audit

format: ## let ruff format the code and mend what it safely can
	$(call setup,dev)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: ## measure throughput and latency, e.g. ARGS="--help"
	$(call setup,demo)
	exec $(BIN)/python -m simulators.bench $(ARGS)

bench-edge: ## measure what one agent costs a Pi, e.g. ARGS="--for 30"
	$(call setup,demo)
	exec $(BIN)/python -m simulators.bench.edge $(ARGS)

soak: ## run for long under faults, e.g. ARGS="--help"
	$(call setup,demo)
	exec $(BIN)/python -m simulators.soak $(ARGS)

# dev first: the others take their versions from it, so that all agree.
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --system-certs \
	--custom-compile-command "make lock" $(ARGS) pyproject.toml
# ESPHome has an environment of its own (.ci/esphome).
ESPHOME_COMPILE = $(subst pyproject.toml,firmware_configs/esphome/requirements.in,$(UV_COMPILE)) \
	--output-file requirements/esphome.txt
lock: ## lock requirements/*.txt anew, e.g. ARGS="--upgrade"
	$(call setup,demo)
	$(BIN)/python -m pip install --quiet uv >&2
	$(UV_COMPILE) --extra dev --group build --output-file requirements/dev.txt >&2
	$(UV_COMPILE) --extra sim --group build --constraint requirements/dev.txt --output-file requirements/demo.txt >&2
	$(UV_COMPILE) --extra gateway --constraint requirements/dev.txt --output-file requirements/gateway.txt >&2
	$(UV_COMPILE) --extra gateway --extra voice --constraint requirements/dev.txt --output-file requirements/gateway-voice.txt >&2
	$(UV_COMPILE) --extra gateway --extra postgresql --constraint requirements/dev.txt \
		--output-file requirements/gateway-postgresql.txt >&2
	$(UV_COMPILE) --extra gateway --extra reports --constraint requirements/dev.txt --output-file requirements/gateway-reports.txt >&2
	$(UV_COMPILE) --extra edge --constraint requirements/dev.txt --output-file requirements/edge.txt >&2
	$(UV_COMPILE) --extra edge --extra ble --constraint requirements/dev.txt --output-file requirements/edge-ble.txt >&2
	$(UV_COMPILE) --extra edge --extra classify --constraint requirements/dev.txt --output-file requirements/edge-classify.txt >&2
	$(ESPHOME_COMPILE) >&2
	if grep -n '://' requirements/*.txt >&2; then echo 'satomori: an address got into requirements/' >&2; exit 1; fi

clean: ## remove .venv, builds and caches (no recorded data)
	rm -rf $(VENV) build dist dashboards/web/dist dashboards/web/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
