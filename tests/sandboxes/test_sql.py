"""The SQL sandbox over real boxes: what it shows, what it refuses, and that nothing a query does loses the episode."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agenthub.errors import HostFault, UnknownName, UserError
from agenthub.records import Call, Observation, frozen
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.sql.sandbox import SqlSandbox, SqlSession, shown
from tests.sandboxes.boxes import need_jail

DATABASE = "CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL), (3, 'y\nz');"


def spec(**params: object) -> SandboxSpec:
    return SandboxSpec(params=frozen({"database": DATABASE} | params))


@pytest.fixture
async def factory() -> AsyncIterator[SqlSandbox]:
    need_jail()
    made = SqlSandbox()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def session(factory: SqlSandbox) -> AsyncIterator[SqlSession]:
    made = await factory.start(spec(rows=2, steps=200_000))
    yield made
    await made.close()


async def ask(session: SqlSession, query: object, timeout_s: float = 20.0) -> Observation:
    return await session.call(Call(id="1", tool="sql", arguments=frozen({"query": query})), timeout_s=timeout_s)


async def test_a_query_shows_its_rows_as_lines(session: SqlSession) -> None:
    assert (await ask(session, "SELECT a, b FROM t WHERE a < 3")).text == "a | b\n1 | x\n2 | NULL\n(2 rows)\n"
    assert (await ask(session, "SELECT b FROM t WHERE a = 3")).text == "b\ny\\nz\n(1 row)\n"
    assert (await ask(session, "SELECT x'00ff' AS raw")).text == "raw\n00ff\n(1 row)\n"
    assert "2025-03-01" in (await ask(session, "SELECT date('2025-01-31', '+29 days');")).text
    assert "| 7 |" in (await ask(session, "SELECT 1, CAST(strftime('%m', '2025-07-09') AS INT), 2 ; ;")).text
    assert "a | INTEGER" in (await ask(session, "PRAGMA TABLE_INFO(t)")).text
    cut = await ask(session, "SELECT a FROM t")
    assert cut.text.endswith("(the first 2 rows of more)\n") and cut.truncated


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT c FROM t", "no such column: c"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("DELETE FROM t", "not authorized"),
        ("INSERT INTO t VALUES (9, 'q')", "not authorized"),
        ("CREATE TABLE u (a)", "not authorized"),
        ("DROP TABLE t", "not authorized"),
        ("ATTACH '/etc/passwd' AS p", "not authorized"),
        ("VACUUM INTO '/tmp/x'", "authorization denied"),
        ("PRAGMA query_only = OFF", "not authorized"),
        ("PRAGMA writable_schema = ON", "not authorized"),
        ("SELECT load_extension('x')", "not authorized"),
        ("SELECT random()", "not authorized"),
        ("SELECT RANDOMBLOB(4)", "not authorized"),
        ("SELECT CURRENT_TIMESTAMP", "not authorized"),
        ("SELECT date()", "user-defined function raised"),
        ("SELECT strftime('%f', ' NOW ')", "user-defined function raised"),
        ("SELECT julianday('now')", "user-defined function raised"),
        ("SELECT sqlite_version()", "not authorized"),
        ("BEGIN", "not authorized"),
        ("-- nothing", "shows nothing"),
        ("", "shows nothing"),
        ("SELECT '\0'", "null character"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n", "200,000 steps"),
        ("SELECT zeroblob(100000000)", "too big"),
        ("SELECT count(*) FROM t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t", "ambiguous|steps"),
    ],
)
async def test_what_is_wrong_is_told_and_the_next_query_is_answered(session: SqlSession, query: str, said: str) -> None:
    seen = await ask(session, query)
    assert seen.failed and any(part in seen.text for part in said.split("|")), seen.text
    assert "\n1\n" in (await ask(session, "SELECT a FROM t WHERE a = 1")).text


@pytest.mark.parametrize("arguments", [{}, {"query": 3}, {"query": "SELECT 1", "more": 1}, {"code": "SELECT 1"}])
async def test_arguments_of_the_wrong_shape_are_an_observation(
    session: SqlSession, arguments: dict[str, object]
) -> None:
    seen = await session.call(Call(id="1", tool="sql", arguments=frozen(arguments)), timeout_s=5.0)
    assert seen.failed and "argument" in seen.text


async def test_a_query_out_of_time_ends_its_box_and_not_the_episode(factory: SqlSandbox) -> None:
    session = await factory.start(spec(steps=10**10))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n"
    seen = await ask(session, endless, timeout_s=0.3)
    assert seen.failed and seen.text == "error: the query took too long or too much\n"
    assert "(3 rows)" in (await ask(session, "SELECT a FROM t")).text
    await session.close()


async def test_a_query_out_of_memory_ends_at_most_its_box(factory: SqlSandbox) -> None:
    session = await factory.start(spec(steps=10**10))
    hungry = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
        "SELECT group_concat(hex(zeroblob(500000))) OVER () FROM n"
    )
    assert (await ask(session, hungry)).failed
    assert "(3 rows)" in (await ask(session, "SELECT a FROM t")).text
    await session.close()


async def test_what_is_shown_has_an_end_and_says_so(factory: SqlSandbox) -> None:
    session = await factory.start(spec(shown=100))
    wide = ", ".join(f"{n} AS column_{n}" for n in range(500))
    seen = await ask(session, f"SELECT {wide}")
    assert seen.truncated and len(seen.sha256) == 64 and "characters were cut]" in seen.text and len(seen.text) < 150
    await session.close()


@pytest.mark.parametrize(
    "columns",
    [
        ", ".join(["replace(hex(zeroblob(400000)), '00', char(1))"] * 3),
        ", ".join(["''"] * 1900),
        ", ".join(["NULL"] * 1900),
    ],
    ids=["escaped", "empty", "null"],
)
async def test_a_result_that_is_too_large_is_told_before_it_is_sent(factory: SqlSandbox, columns: str) -> None:
    session = await factory.start(spec(rows=1000, steps=10**9))
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
    seen = await ask(session, f"{rows} SELECT {columns} FROM n")
    assert seen.failed and "too large" in seen.text
    assert "(3 rows)" in (await ask(session, "SELECT a FROM t")).text
    await session.close()


async def test_a_database_that_cannot_be_made_again_is_our_fault(
    factory: SqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await factory.start(spec())
    await session.close()
    monkeypatch.setattr("agenthub.sandboxes.sql.sandbox._OPEN_S", 0.0)
    with pytest.raises(HostFault, match=r"database|start"):
        await ask(session, "SELECT 1")


async def test_a_fresh_one_is_a_copy(factory: SqlSandbox, session: SqlSession) -> None:
    assert factory.capabilities().fork == "stateless"
    with pytest.raises(UserError, match="no state"):
        await session.fork(2)


async def test_settings_and_scripts_that_are_wrong_are_refused(factory: SqlSandbox) -> None:
    with pytest.raises(UserError, match="needs its setting `database`"):
        await factory.start(SandboxSpec())
    with pytest.raises(UnknownName, match="steps"):
        await factory.start(spec(step=3))
    with pytest.raises(UserError, match="'rows'"):
        await factory.start(spec(rows=0))
    with pytest.raises(UserError, match=r"script of the database fails.*syntax error"):
        await factory.start(spec(database="CREATE TABEL t (a)"))
    with pytest.raises(UserError, match="no files"):
        await factory.start(SandboxSpec(files=frozen({"a": b""}), params=frozen({"database": DATABASE})))


@pytest.mark.parametrize("value", [{}, {"columns": ["a"], "rows": [[1, 2]], "more": False}, {"columns": 3}, None])
def test_a_forged_result_is_no_table(value: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        shown(value)  # type: ignore[arg-type]
