"""Results in short as Markdown, for a pull request or a wiki."""

from recsparse.report.choice import choose
from recsparse.report.results import Results
from recsparse.report.words import difference_between, human_bytes, interval, metric_name, signed, verdict


def to_markdown(results: Results) -> str:
    """The verdict, every row, the claims and how it was measured."""
    choice = choose(results)
    title, sentences = verdict(results, choice)
    lines = [f"# {_text(title)}", "", *(_text(sentence) + "\n" for sentence in sentences)]
    lines += [f"> {_text(warning)}\n" for warning in (*results.split.warnings, *results.warnings)]
    names = ["table", "type", "bytes / item", *(metric_name(metric) for metric in results.metrics), "vs dense"]
    lines += ["| " + " | ".join(names) + " |", "|---|---|" + "---:|" * (len(names) - 2)]
    for row in sorted(results.rows, key=lambda row: (row.bytes_per_item is None, row.bytes_per_item or 0.0)):
        against = difference_between(results, row.label, choice.reference.label)
        label = f"**{_text(row.label)}**" if row.label == choice.row.label else _text(row.label)
        cells = [label, row.value_type if row.bytes_total else "–", human_bytes(row.bytes_per_item)]
        cells += [interval(row.metrics[metric]) for metric in results.metrics]
        cells.append(
            "–" if against is None else f"{signed(against.difference)} [{signed(against.low)}, {signed(against.high)}]"
        )
        lines.append("| " + " | ".join(cells) + " |")
    if results.claims:
        lines += ["", "| claim | verdict | evidence | how |", "|---|---|---|---|"]
        lines += [
            f"| {_text(one.claim)} | **{one.verdict}** | {_text(one.evidence)} | {_text(one.experiment)} |"
            for one in results.claims
        ]
    split, data = results.split, results.dataset
    counts = f"{data.users:,} users, {data.items:,} items, {data.interactions:,} interactions"
    lines += ["", f"{_text(data.title or data.name)}: {counts}. {_text(split.protocol)}: {_text(split.description)}"]
    lines += [
        f"{split.test_users:,} test users; full ranking, seen items left out; 95 % bootstrap intervals over users, but "
        "where a claim says Welch."
    ]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Escape what Markdown or its HTML would read as markup, a table's bar included."""
    for character in "\\`*_[]<>|#":
        text = text.replace(
            character, "\\" + character if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return " ".join(text.split())
