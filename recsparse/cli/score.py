"""``recsparse score``: the best items of every user, into Parquet."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsparse.cli.console import AsJson, answer, progress
from recsparse.errors import ConfigError, DataError

if TYPE_CHECKING:
    from recsparse.scoring import Progress


def score(
    model: Annotated[Path, typer.Argument(help="A saved model's directory.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for the parts; the same command again goes on there.")
    ],
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Items a user.")] = 20,
    users: Annotated[
        Path | None, typer.Option(help="Parquet file with user_id: only these; unknown ones are answered as cold.")
    ] = None,
    user: Annotated[list[str] | None, typer.Option(help="Only this user, who must be known; may be repeated.")] = None,
    histories: Annotated[
        Path | None, typer.Option(help="Dataset directory to know users by, instead of what the model was trained on.")
    ] = None,
    match_items: Annotated[bool, typer.Option(help="Let --histories have another catalogue; match by id.")] = False,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Recommend items of the user's history too.")] = False,
    seen: Annotated[
        list[Path] | None, typer.Option(help="Dataset directory whose pairs are left out as well; may be repeated.")
    ] = None,
    allow: Annotated[Path | None, typer.Option(help="Parquet file with item_id: only these items.")] = None,
    deny: Annotated[Path | None, typer.Option(help="Parquet file with item_id: none of these items.")] = None,
    denials: Annotated[Path | None, typer.Option(help="Parquet file of user_id, item_id: pairs to leave out.")] = None,
    where: Annotated[
        str | None, typer.Option(help='SQL over the items\' columns, such as "year >= 1990": only these items.')
    ] = None,
    per_category: Annotated[
        str | None, typer.Option(metavar="COLUMN:N", help="At most N items of one value of a column in a list.")
    ] = None,
    popularity_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Cold users get what is popular among users of their value.")
    ] = None,
    part_users: Annotated[int, typer.Option(min=1, help="Users a part: the most that a kill can cost.")] = 1 << 16,
    memory: Annotated[str | None, typer.Option(help="The most this process may hold, for example 2GiB.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Write every N-th part from the I-th; all may share a directory.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local or spark; equal bytes.")] = "local",
    master: Annotated[str | None, typer.Option(help="Spark's master; local[*] if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the best items of every user into Parquet: user_id, item_id, rank, score, status.

    Exact under every filter, in bounded memory, a part at a time. A killed command, run again, goes on where it was.

    Example: recsparse score model -o tonight --top 20 --memory 2GiB --where "year >= 1990"
    """
    from recsparse.scoring import Filters, Job, recommend_to_parquet

    if users and user:
        raise ConfigError("--users and --user were both given; name the users one way.")
    filters = Filters(
        exclude_seen=not keep_seen, seen=tuple(seen or ()), allow=allow, deny=deny, denials=denials, where=where,
        per_category=_per_category(per_category),
    )  # fmt: skip
    named = known_ids(user, (histories or model) / "users.parquet", "user_id") if user else None
    job = Job(
        users=named or users, histories=histories, k=top, filters=filters, popularity_by=popularity_by,
        match_items=match_items, part_users=part_users, memory=memory,
    )  # fmt: skip
    if engine not in ("local", "spark"):
        raise ConfigError(f"--engine is {engine!r}; it must be local or spark.")
    if (shard and engine == "spark") or (master and engine == "local"):
        raise ConfigError("--shard is of the local engine and --master of Spark's; leave one out.")
    with progress() as tell:
        if engine == "spark":
            from recsparse.scoring.spark import recommend_on_spark

            tell("score on Spark", 0, None)
            summary = recommend_on_spark(model, output, job, master=master or "local[*]")
        else:

            def told(now: "Progress") -> None:
                tell(f"score: {now.users_per_second:,.0f} users/s, {now.seconds_left:,.0f} s left", now.done, now.total)

            summary = recommend_to_parquet(model, output, job, shard=_shard(shard or "1/1"), progress=told)
    per_second = summary.scored / max(summary.seconds, 1e-9)
    answer({"directory": output, **asdict(summary), "users_per_second": per_second}, as_json, "scored")


def known_ids(ids: list[str], file: Path, column: str) -> list[Any]:
    """Ids typed by hand as the data has them; one that is not there is more likely a slip than a newcomer."""
    from recsparse.interactions.store import read_table

    known = {str(one): one for one in read_table(file)[column].to_pylist()}
    for one in ids:
        if one not in known:
            raise DataError(
                f"There is no {column} {one!r} in {file}, which has {len(known):,}, {next(iter(known), None)!r} for "
                "one; it has to be one of them."
            )
    return [known[one] for one in ids]


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal()):
        raise ConfigError(f"--shard is {text!r}; it must be I/N, for example 2/4.")
    return int(number), int(of)


def _per_category(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    column, _, most = text.rpartition(":")
    if not column or not most.isdecimal():
        raise ConfigError(f"--per-category is {text!r}; it must be COLUMN:N, for example genre:3.")
    return column, int(most)
