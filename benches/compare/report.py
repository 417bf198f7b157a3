"""Rounds of measurements → medians, ratios of pairs, a Markdown table, JSON."""

from statistics import median

UNITS = {
    "plain": "µs/request", "tls": "µs/request", "download": "µs/MB", "upload": "µs/MB", "idle": "KiB/connection",
}

# (scenario, figure, cupbearer against, the ratio to stay under)
GOALS = [
    ("plain", "cost", "nginx", 1.00),
    ("plain", "cost", "haproxy", 0.90),
    ("plain", "cost", "relay", 1.25),
    ("plain", "p99_us", "better peer", 1.10),
    ("tls", "cost", "nginx", 0.80),
    ("tls", "cost", "haproxy", 0.80),
    ("tls", "p99_us", "better peer", 1.10),
    ("download", "cost", "nginx", 1.00),
    ("upload", "cost", "nginx", 1.00),
]
# (what, scenario, figure, limit)
LIMITS = [("RSS, idle [MB]", "idle", "rss_mb", 20), ("RSS per idle connection [KiB]", "idle", "cost", 12)]
FIGURES = {"cost": "CPU", "p99_us": "p99"}


def summarize(rounds):
    """`rounds[scenario]` is a list of {proxy: measurement} → medians and the medians of the pairs' ratios."""
    summary = {}
    for scenario, measured in rounds.items():
        proxies = list(measured[0])
        medians = {
            proxy: {figure: median(r[proxy][figure] for r in measured) for figure in measured[0][proxy]}
            for proxy in proxies
        }
        ratios = {}
        for a in proxies:
            for b in proxies:
                if a != b:
                    ratios[f"{a}/{b}"] = {figure: spread(measured, a, b, figure) for figure in ("cost", "p99_us")
                                          if figure in medians[a]}
        summary[scenario] = {"unit": UNITS[scenario], "medians": medians, "ratios": ratios, "rounds": measured}
    return summary


def spread(measured, a, b, figure):
    """Ratios are taken within a round, where both saw the same machine."""
    ratios = [r[a][figure] / r[b][figure] for r in measured if r[b][figure]]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)} if ratios else None


def against(summary, scenario, figure, peer):
    """cupbearer's ratio to a peer, or to the better of both; None where it was not measured."""
    ratios = summary.get(scenario, {}).get("ratios", {})
    peers = ["nginx", "haproxy"] if peer == "better peer" else [peer]
    found = [ratios.get(f"cupbearer/{p}", {}).get(figure) for p in peers]
    found = [ratio["median"] for ratio in found if ratio]
    return max(found) if found else None


def goals(summary):
    """Each goal that was measured: (what, measured, limit)."""
    rows = []
    for scenario, figure, peer, limit in GOALS:
        ratio = against(summary, scenario, figure, peer)
        if ratio is not None:
            rows.append((f"{scenario}: {FIGURES[figure]} vs {peer}", ratio, limit))
    for what, scenario, figure, limit in LIMITS:
        own = summary.get(scenario, {}).get("medians", {}).get("cupbearer")
        if own:
            rows.append((what, own["rss_kib"] / 1024 if figure == "rss_mb" else own[figure], limit))
    return rows


def markdown(summary):
    lines = ["| scenario | proxy | cost | vs nginx | vs HAProxy | p99 [ms] | per second | RSS [MB] |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]
    for scenario, facts in summary.items():
        for proxy, figures in facts["medians"].items():
            cells = [scenario, proxy, f"{figures['cost']:.1f} {facts['unit']}",
                     ratio_cell(facts, proxy, "nginx"), ratio_cell(facts, proxy, "haproxy"),
                     f"{figures['p99_us'] / 1000:.2f}" if "p99_us" in figures else "",
                     f"{figures['per_second']:.0f}" if "per_second" in figures else "",
                     f"{figures['rss_kib'] / 1024:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
    rows = goals(summary)
    if rows:
        lines += ["", "| goal (cupbearer) | measured | at most | |", "|---|---:|---:|---|"]
        lines += [f"| {what} | {measured:.2f} | {limit:.2f} | {'met' if measured <= limit else '**not met**'} |"
                  for what, measured, limit in rows]
    return "\n".join(lines)


def ratio_cell(facts, proxy, peer):
    ratio = facts["ratios"].get(f"{proxy}/{peer}", {}).get("cost")
    if proxy == peer:
        return "1.00"
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else ""
