"""The plan as text for somebody who has never seen one: the answer first, then what it rests on, then what to type.

Every speed says where it comes from and every loser can be asked about; a plan that chose nothing says what would
have to change.
"""

from planner import units
from planner.render.layout import INDENT, bullets, columns, facts, paragraph, section
from planner.render.llama_server import shell_lines
from planner.render.rejected import rejected_lines
from planner.render.style import PLAIN, WIDTH, Style
from planner.render.text import finish, machine_lines, memory_lines, settings_lines, speed_origin, speed_range, tokens
from planner.render.untrusted import cleaned
from planner.types.plan import Candidate, Goal, Plan, Speed

__all__ = ["ASK_FOR_LESS", "answer", "goal_words", "plan_text", "quality_words", "speed_rows", "why"]

_WORTH_ASKING = ("too-big", "too-slow", "answer-too-late", "lower-rank")
ASK_FOR_LESS = (
    "ask for less: a shorter --context, a lower --min-speed, fewer --parallel, more --family",
    "ask why a model lost: planner why-not MODEL",
)
"""What to do next where a plan chose nothing."""

_USES = {"chat": "chat", "code": "writing code", "reasoning": "reasoning", "documents": "long documents"}


def plan_text(plan: Plan, style: Style = PLAIN) -> str:
    """The whole plan: answer, machine, choice, memory, speed, why, trade-offs, rejected, warnings, next steps."""
    plan = cleaned(plan)
    lines = [style.heading(line) for line in paragraph(answer(plan), indent="")]
    lines += [*paragraph(f"You asked for {goal_words(plan.goal)}.", indent=""), ""]
    machine = [line for fact in machine_lines(plan.machine, style) for line in paragraph(fact)]
    # A plan for another machine must not be taken for one of this machine.
    title = "Machine" if plan.machine.kind == "detected" else "Machine (not this one)"
    lines += section(title, machine, style)
    if plan.chosen is not None:
        lines += _chosen(plan.chosen, style)
    lines += section("Why", bullets(why(plan), style), style)
    lines += section("Trade-offs", _trade_offs(plan, style), style)
    lines += section("Rejected", rejected_lines(plan.rejected, style), style)
    lines += section(style.warn("Warnings"), bullets(plan.warnings, style), style)
    lines += _next(plan, style)
    return finish(lines)


def goal_words(goal: Goal) -> str:
    """The goal in words: use, context, parallel sequences, speed and what was fixed."""
    per_sequence = None if goal.context_tokens is None else f"{tokens(goal.context_tokens)} tokens of context"
    parts = [
        f"a model for {_USES[goal.use]}",
        per_sequence,
        f"{goal.parallel} sequences at a time" if goal.parallel > 1 else None,
        f"at least {units.rate(goal.min_tokens_per_s)} tokens/s",
        None if goal.max_answer_seconds is None else f"an answer within {units.duration(goal.max_answer_seconds)}",
        f"that speaks {', '.join(goal.languages)}" if goal.languages else None,
        "that is on this machine already" if goal.local else None,
        f"of {', '.join(goal.families)}" if goal.families not in {(), ("all",)} else None,
        "a licence for commercial use" if goal.commercial_license else None,
        f"model {goal.model}" if goal.model else None,
        f"quantization {goal.quantization}" if goal.quantization else None,
        f"cache type {goal.cache_type}" if goal.cache_type else None,
        f"load mode {goal.load_mode}" if goal.load_mode else None,
        f"{units.gib(goal.reserve_bytes)} kept free" if goal.reserve_bytes is not None else None,
    ]
    return ", ".join(part for part in parts if part)


def answer(plan: Plan) -> str:
    """The plan in one sentence: what to run and how fast it will be, or that nothing meets the goal."""
    chosen = plan.chosen
    if chosen is None:
        where = "this machine" if plan.machine.kind == "detected" else plan.machine.name
        return f"Nothing meets the goal on {where}."
    speed = chosen.speed.generate
    mode = ", thinking," if chosen.thinking else ""
    pace = "" if speed is None else f" at about {units.rate(speed.tokens_per_s)} tokens per second"
    return f"Run {chosen.model} in {chosen.quantization}{mode if pace else mode.rstrip(',')}{pace}."


def _chosen(chosen: Candidate, style: Style) -> list[str]:
    what = f"{chosen.model}, quantization {chosen.quantization}, {units.gib(chosen.file_bytes)} of weights"
    told = (what, *quality_words(chosen, style), *settings_lines(chosen.settings, style))
    choice = [line for fact in told for line in paragraph(fact)]
    return [
        *section("Choice", choice, style),
        *section("Memory", memory_lines(chosen.memory, style), style),
        *section("Speed", _speeds(chosen, style), style),
    ]


def quality_words(chosen: Candidate, style: Style) -> tuple[str, ...]:
    """The index with its interval, the mode it holds for, and how long a typical answer takes."""
    index = chosen.index
    if index is None:
        return ()
    words = facts(
        [
            f"{index.group} index {index.value:.0f} of 100 ({index.low:.0f}{style.dash}{index.high:.0f})",
            "thinking before it answers" if chosen.thinking else "answers without thinking",
            None
            if chosen.answer_seconds is None
            else f"a typical answer in about {units.duration(chosen.answer_seconds)}",
        ],
        style,
    )
    return (words,)


def _speeds(chosen: Candidate, style: Style) -> list[str]:
    table = [
        (name, units.rate(speed.tokens_per_s if speed else None), speed_range(speed, style), speed_origin(speed))
        for name, speed in speed_rows(chosen)
    ]
    return columns(("", "tokens/s", "range", "where the number comes from"), table, right=(1, 2))


def speed_rows(chosen: Candidate) -> list[tuple[str, Speed | None]]:
    """Every speed of a candidate in the order it is told, each with what it is the speed of."""
    speeds = chosen.speed
    rows: list[tuple[str, Speed | None]] = [("writes an answer", speeds.generate), ("reads a prompt", speeds.prompt)]
    deeper = [each for each in (speeds.generate_at_depth, speeds.generate_full) if each is not None]
    rows[1:1] = [(f"after {tokens(each.at_context_tokens)} tokens", each) for each in deeper]
    if speeds.generate_together is not None:
        rows.insert(1, (f"each of {chosen.settings.parallel} at once", speeds.generate_together))
    return rows


def why(plan: Plan) -> list[str]:
    """The plan's reasons, or the chosen candidate's own where the plan gives none."""
    reasons = plan.reasons or (plan.chosen.reasons if plan.chosen else ())
    return [reason.text for reason in reasons]


def _trade_offs(plan: Plan, style: Style) -> list[str]:
    """The sentence, then quality against speed and memory: each line is beaten by no other in all three."""
    told = paragraph(plan.trade_off) if plan.trade_off else []
    if len(plan.pareto) < 2:
        return told
    rows = [_point(candidate, plan.chosen, style) for candidate in plan.pareto]
    header = ("", "model", "quantization", "index", "interval", "tokens/s", "answer", "memory")
    table = columns(header, rows, right=(3, 5, 6, 7))
    return [*told, "", *table] if told else table


def _point(candidate: Candidate, chosen: Candidate | None, style: Style) -> tuple[str, ...]:
    speed, index = candidate.speed.generate, candidate.index
    pace = "unknown" if speed is None else units.rate(speed.tokens_per_s)
    if speed is not None and speed.origin != "measured":
        # A number that was not measured must not look like one that was.
        pace = f"{'≈' if style.unicode else '~'}{pace}"
    same = chosen is not None and (candidate.model, candidate.quantization) == (chosen.model, chosen.quantization)
    return (
        ("→" if style.unicode else ">") if same else "",
        candidate.model,
        candidate.quantization,
        "" if index is None else f"{index.value:.0f}",
        "" if index is None else f"{index.low:.0f}{style.dash}{index.high:.0f}",
        pace,
        "" if candidate.answer_seconds is None else units.duration(candidate.answer_seconds),
        units.gib(sum(memory.total_bytes for memory in candidate.memory)),
    )


_FROM_A_FILE = (
    "planner serve plan.json",
    "planner verify plan.json",
    "planner export plan.json --to systemd",
    "planner report plan.json --html plan.html",
)


def _next(plan: Plan, style: Style) -> list[str]:
    if plan.chosen is None or plan.commands is None:
        return section("Next", bullets(ASK_FOR_LESS, style), style)
    commands = plan.commands
    shell = shell_lines(commands.llama_server, commands.environment, width=WIDTH, indent=INDENT * 3)
    steps = []
    if commands.weights_hint:
        hint = f"1. Get the weights. {commands.weights_hint}."
        steps += paragraph(hint, hanging=INDENT + "   ", unbroken_words=True)
    steps += paragraph(f"{2 if steps else 1}. Start the server; it answers on http://127.0.0.1:8080 :")
    steps += ["", *shell, ""]
    if not _is_of_files(plan):
        steps.append(f"{INDENT}Why not another model?             planner why-not {_loser(plan)}")
    steps.append(f"{INDENT}All of it, with a Python snippet?  add --json to the same command")
    steps += ["", f"{INDENT}Or from a plan file, which --output plan.json keeps:", ""]
    source = "" if plan.chosen.artifact is not None else " --from hf:OWNER/REPO"
    steps += [f"{INDENT * 3}{line}" for line in (f"planner fetch plan.json{source}", *_FROM_A_FILE)]
    return section("Next", steps, style)


def _is_of_files(plan: Plan) -> bool:
    """Whether the candidates are files: why-not knows the catalogue alone."""
    candidates = (plan.chosen, *plan.alternatives, *plan.pareto)
    return all(each is not None and each.artifact is not None for each in candidates)


def _loser(plan: Plan) -> str:
    """A name that is worth asking about: one that lost by its size, speed or index rather than by its family."""
    decided = [loser for loser in plan.rejected if loser.reason.code in _WORTH_ASKING]
    losers = [(loser.model, loser.quantization) for loser in decided or plan.rejected]
    losers += [(runner.model, runner.quantization) for runner in plan.alternatives]
    model, quantization = losers[0] if losers else ("MODEL", None)
    return f"{model}:{quantization}" if quantization else model
