"""Rounds of measurements → medians, ratios of pairs, Markdown, and the table in the documentation."""

from statistics import median

BEGIN, END = "<!-- figures: begin (benches/compare/run --docs) -->", "<!-- figures: end -->"
COMPARED = ("cost", "p99_us", "per_core_second")


def summarize(rounds, scenarios, unavailable):
    """`rounds[scenario]` is a list of {candidate: measurement} → medians and the medians of the pairs' ratios."""
    summary = {}
    for name, measured in rounds.items():
        about = {"about": scenarios[name].about, "unit": scenarios[name].unit}
        if name in unavailable:
            summary[name] = {**about, "not_available": unavailable[name], "medians": {}, "ratios": {}, "rounds": []}
            continue
        candidates = list(measured[0]) if measured else []
        medians = {candidate: middle([r[candidate] for r in measured]) for candidate in candidates}
        ratios = {f"{a}/{b}": {figure: spread(measured, a, b, figure) for figure in COMPARED if figure in medians[a]}
                  for a in candidates for b in candidates if a != b}
        summary[name] = {**about, "medians": medians, "ratios": ratios, "rounds": measured}
    return summary


def middle(measurements):
    """The median of each figure that is a number."""
    figures = {figure: median(m[figure] for m in measurements)
               for figure, value in measurements[0].items() if isinstance(value, (int, float))}
    return {**figures, "rss_mb": figures["rss_kib"] / 1024}


def spread(measured, a, b, figure):
    """Ratios are taken within a round, where both saw the same machine."""
    ratios = [r[a][figure] / r[b][figure] for r in measured if r[b].get(figure)]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)} if ratios else None


def markdown(result):
    """Everything of a run, for a terminal as for the documentation."""
    return "\n".join([*goal_table(result["goals"]), "", *figure_table(result["scenarios"])])


def goal_table(rows):
    lines = ["| goal | measured | limit | |", "|---|---:|---:|---|"]
    for row in rows:
        measured = "not available" if row["measured"] is None else f"{row['measured']:.2f}"
        limit = f"{'≥' if row['at_least'] else '≤'} {row['limit']:g}"
        lines.append(f"| {row['goal']} | {measured} | {limit} | {'met' if row['met'] else '**not met**'} |")
    return lines


def figure_table(summary):
    lines = ["| scenario | who | cost | of it user | vs nginx | vs HAProxy | p99 [ms] | per second | memory [MB] |",
             "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, facts in summary.items():
        if "not_available" in facts:
            lines.append(f"| {name} | | {facts['not_available']} | | | | | | |")
        for who, figures in facts["medians"].items():
            cells = [name, who, f"{figures['cost']:.1f} {facts['unit']}",
                     f"{figures['user']:.1f}" if "user" in figures else "",
                     ratio_cell(facts, who, "nginx"), ratio_cell(facts, who, "haproxy"),
                     f"{figures['p99_us'] / 1000:.2f}" if "p99_us" in figures else "",
                     f"{figures['per_second']:.0f}" if "per_second" in figures else "",
                     f"{figures['rss_mb']:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def ratio_cell(facts, who, peer):
    ratio = facts["ratios"].get(f"{who}/{peer}", {}).get("cost")
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else ""


def about(result):
    """Where and how the figures were taken, as one sentence."""
    versions = ", ".join(v.removeprefix("nginx version: ") for v in result["versions"].values())
    machine, settings = result["machine"], result["settings"]
    return (f"{result['taken']}: {versions}; Linux {machine['kernel']}, {machine['architecture']}, {machine['cores']} cores "
            f"({machine['processor']}); medians of {settings['rounds']} interleaved rounds of {settings['seconds']} s after one to warm "
            f"up, {settings['connections']} connections.")


def write_docs(path, result):
    """Puts a run's tables between the markers of a document."""
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines `{BEGIN}` and `{END}`")
    path.write_text(f"{before}{BEGIN}\n{about(result)}\n\n{markdown(result)}\n{END}{after}")
