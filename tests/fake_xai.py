"""A fake xAI on a real socket, for tests and for trying the service without a key (`make fake-xai`)."""

import argparse
import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tests.fake_xai_answers import TICKS_PER_USD, Judge, derived, local_judge, obedient
from tests.fake_xai_core import FakeXai, FakeXaiTransport
from tests.fake_xai_faults import FAULTS, FaultPlan
from tests.fake_xai_journal import Journal
from tests.fake_xai_server import FakeXaiServer, running_fake_xai

__all__ = ["FakeXai", "FakeXaiServer", "FakeXaiTransport", "FaultPlan", "Journal", "running_fake_xai"]

_TELL_INTERVAL_S = 1.0
_JUDGES: Mapping[str, Callable[[], Judge]] = {
    "local": local_judge,
    "derived": lambda: derived,
    "obedient": lambda: obedient(local_judge()),
}


def main() -> int:
    options = _read_options(sys.argv[1:])
    try:
        plan = FaultPlan(options.seed, options.faults, options.kinds)
        xai = FakeXai(
            judge=_JUDGES[options.judge](),
            plan=plan,
            calls_per_s=options.calls_per_s,
            latency_s=options.latency,
            journal=Journal(options.journal),
            keeps_payloads=False,
        )
        server = FakeXaiServer(xai, port=options.port)
    except (ValueError, OSError) as error:
        print(f"The fake xAI cannot start: {error}", file=sys.stderr)
        return 2
    asyncio.run(_serve(server))
    print(_summary(xai))
    return 0


def _read_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fake-xai", description="Play xAI on a socket of this host.")
    parser.add_argument("--port", type=int, default=9009, help="0 takes a free one (default 9009)")
    parser.add_argument("--latency", type=float, default=0.0, metavar="S", help="seconds before each answer")
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE", help="share of spoiled calls, 0 to 1")
    parser.add_argument("--kinds", nargs="+", default=(), metavar="FAULT", help=f"only these: {' '.join(FAULTS)}")
    parser.add_argument("--seed", type=int, default=0, help="which calls are spoiled, and how")
    parser.add_argument("--judge", choices=sorted(_JUDGES), default="local", help="how a text is judged")
    parser.add_argument("--calls-per-s", type=int, metavar="N", help="answer 429 beyond this")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="append each call to it, a line of JSON each")
    return parser.parse_args(arguments)


async def _serve(server: FakeXaiServer) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await server.start()
    print(f"GROK_BASE_URL={server.url} GROK_KEY=test make run", flush=True)
    told = 0
    while not stopping.is_set():
        if (count := len(server.journal.calls)) != told:
            print(_line(server.fake), flush=True)
            told = count
        await _rest(stopping)
    await server.stop()


async def _rest(stopping: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), _TELL_INTERVAL_S)
    except TimeoutError:
        return


def _line(xai: FakeXai) -> str:
    calls = xai.journal.calls
    faults = sum(call.fault is not None for call in calls)
    conversations = sum(len(call.texts) for call in calls)
    return f"calls {len(calls)}, conversations {conversations}, faults {faults}, in flight {xai.in_flight}"


def _summary(xai: FakeXai) -> str:
    journal = xai.journal
    prompt = sum(call.prompt_tokens for call in journal.calls)
    cached = sum(call.cached_tokens for call in journal.calls)
    cost_usd = sum(call.cost_ticks for call in journal.calls) / TICKS_PER_USD
    invalid = [call.problem for call in journal.calls if call.problem]
    lines = [
        "",
        _line(xai),
        f"most calls in any 1 s: {journal.calls_in_busiest_window()}; most in flight: {xai.most_in_flight}",
        f"cost {cost_usd:.4f} USD; {cached / max(1, prompt):.0%} of the prompt tokens came from the cache",
        f"statuses: {_counts(str(call.status) for call in journal.calls)}",
        f"faults: {_counts(call.fault for call in journal.calls if call.fault)}",
        f"requests that xAI's schema refuses: {len(invalid)}{': ' + invalid[0] if invalid else ''}",
    ]
    return "\n".join(lines)


def _counts(words: Iterable[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common()) or "none"


if __name__ == "__main__":
    raise SystemExit(main())
