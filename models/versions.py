"""Which versions of a model are served, and under which labels: rules, and the choice by them. Pure.

Rules come from VERSION_POLICY for all models, and for one from `versions.json` in its folder (every key optional):

    {"policy": "latest:2",                       or "all", or "specific:1,3"
     "labels": {"stable": 3, "canary": 4},       names for versions; these are served whatever the policy
     "canary": {"to": "canary", "share": 0.1}}   a share of the requests that name no version; a label or a version

The version on trial (`canary`) does not count among the latest N, so that there is another to take the other requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.contract_file import read_object
from models.errors import LoadError
from models.repository import VERSION, ModelReference

FILE = "versions.json"
FILE_BYTES_MAX = 64 * 1024

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LATEST = re.compile(r"latest:([1-9][0-9]{0,5})")
_SPECIFIC = re.compile(r"specific:([0-9]{1,18}(?:,[0-9]{1,18})*)")


@dataclass(frozen=True)
class Policy:
    """latest: so many of the newest; specific: exactly these; neither: all there are."""

    latest: int | None = None
    specific: frozenset[int] | None = None

    def wants(self, numbers: Iterable[int]) -> set[int]:
        """Those of the numbers that it serves."""
        if self.specific is not None:
            return set(numbers) & self.specific
        newest = sorted(numbers, reverse=True)
        return set(newest if self.latest is None else newest[: self.latest])


@dataclass(frozen=True)
class Canary:
    """version: the one on trial; share: of the requests that name no version, from 0 to 1."""

    version: int
    share: float


@dataclass(frozen=True)
class Rules:
    """What is said of one model. policy: None for the one that holds for all."""

    policy: Policy | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    canary: Canary | None = None


@dataclass(frozen=True)
class Choice:
    """chosen: by version; refused: reasons by version; routing: labels and canary that can be served."""

    chosen: list[ModelReference]
    refused: dict[str, str]
    routing: dict[str, Any]


# -- rules -------------------------------------------------------------------------------------------------------------


def parse_policy(text: str) -> Policy:
    """The policy of a text such as `latest:1`. Raises ValueError that says what would be one."""
    if text == "all":
        return Policy()
    if found := _LATEST.fullmatch(text):
        return Policy(latest=int(found[1]))
    if found := _SPECIFIC.fullmatch(text):
        return Policy(specific=frozenset(int(number) for number in found[1].split(",")))
    raise ValueError(f"a version policy is latest:N, all, or specific:1,3; not {text[:40]!r}")


def read_rules(path: Path) -> Rules:
    """The rules in a model's versions.json. Raises LoadError with what is wrong with it."""
    return parse_rules(read_object(path, FILE, FILE_BYTES_MAX))


def parse_rules(data: Mapping[str, Any]) -> Rules:
    """As `read_rules`, from the parsed object."""
    _only(data, ("policy", "labels", "canary"), "")
    policy = data.get("policy")
    try:
        parsed = None if policy is None else parse_policy(policy if isinstance(policy, str) else str(policy))
    except ValueError as error:
        raise _wrong("policy", str(error)) from None
    labels = data.get("labels", {})
    if not isinstance(labels, dict):
        raise _wrong("labels", 'must be an object such as {"stable": 3}')
    for label in labels:
        if not _LABEL.fullmatch(label) or VERSION.fullmatch(label):
            raise _wrong("labels", f"{label[:40]!r} is no label: 1 to 64 letters, digits, _ . and -, not digits alone")
    numbers = {label: _number(version, f"labels: {label}") for label, version in labels.items()}
    return Rules(parsed, numbers, _canary(data.get("canary"), numbers))


def _canary(data: Any, labels: Mapping[str, int]) -> Canary | None:
    if data is None:
        return None
    if not isinstance(data, dict) or data.keys() != {"to", "share"}:
        raise _wrong("canary", 'must be an object such as {"to": 4, "share": 0.1}')
    share, to = data["share"], data["to"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise _wrong("canary: share", "must be a number from 0 to 1")
    if isinstance(to, str) and not VERSION.fullmatch(to):
        if to not in labels:
            raise _wrong("canary: to", f"{to[:40]!r} is not among the labels")
        return Canary(labels[to], float(share))
    return Canary(_number(to, "canary: to"), float(share))


def _number(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str) or not VERSION.fullmatch(str(value)):
        raise _wrong(where, "must be the number of a version")
    return int(value)


def _only(data: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in known:
            raise _wrong(where, f"unknown key {key[:40]!r}; known are {', '.join(known)}")


def _wrong(where: str, what: str) -> LoadError:
    return LoadError(f"{FILE}: {where}{': ' if where else ''}{what}")


# -- the choice --------------------------------------------------------------------------------------------------------


def choose(
    found: Sequence[ModelReference],
    rules: Rules,
    usual: Policy,
    fault: Callable[[ModelReference], str | None],
    proved: Sequence[ModelReference] = (),
) -> Choice:
    """What is served of one model.

    found: its versions as they lie on disk, each number once but for refused twins.
    fault: what is known against one that looks well from outside (it could not be loaded, it was rolled back), or None.
    proved: what has served, the last first; its files are kept, and where those on disk are no good it serves on. A
        version that is not on disk any more does so only while nothing that is there can serve.
    """
    good: dict[int, ModelReference] = {}
    bad: dict[int, tuple[str, str]] = {}
    twins: dict[str, str] = {}
    for one in found:
        number, reason = int(one.version), one.refusal or fault(one)
        if reason is None:
            good[number] = one
        elif number in bad or number in good:
            twins[one.version] = reason
        else:
            bad[number] = one.version, reason
    earlier = {int(one.version): one for one in reversed(proved) if fault(one) is None}
    for number in bad.keys() & earlier.keys() - good.keys():
        good[number] = earlier[number]
    stale = bool(found) and not good
    if stale:
        good = earlier
    policy = rules.policy or usual
    wanted = _wanted(good.keys(), rules, policy)
    if stale and not wanted:  # better what served than nothing
        wanted = set(good)
    return Choice(
        [good[number] for number in sorted(wanted)],
        _refused(bad, good, wanted, rules, policy) | twins,
        _routing(good, wanted, rules),
    )


def _wanted(numbers: AbstractSet[int], rules: Rules, policy: Policy) -> set[int]:
    """Which of the numbers are served."""
    on_trial = {rules.canary.version} if rules.canary else set()
    usual = policy.wants(numbers - on_trial) or policy.wants(numbers)
    return usual | ((on_trial | set(rules.labels.values())) & numbers)


def _refused(
    bad: Mapping[int, tuple[str, str]],
    good: Mapping[int, ModelReference],
    wanted: set[int],
    rules: Rules,
    policy: Policy,
) -> dict[str, str]:
    """Why not those that would be served if nothing were wrong with them, with what serves in their place."""
    missed = wanted | _wanted(bad.keys() | good.keys(), rules, policy)
    if policy.latest is not None:  # the next best may be bad, too
        usual = policy.wants(good.keys())
        missed |= {number for number in bad if len(usual) < policy.latest or number > min(usual)}
    refused: dict[str, str] = {}
    for number in sorted(bad.keys() & missed):
        version, reason = bad[number]
        if number in wanted:
            reason = f"{reason}; its earlier files serve on"
        elif wanted:
            reason = f"{reason}; version {good[max(wanted)].version} serves"
        refused[version] = reason
    asked = dict.fromkeys(policy.specific or (), "the version policy asks for it")
    asked |= {version: f"the label {label} means it" for label, version in rules.labels.items()}
    if rules.canary:
        asked.setdefault(rules.canary.version, "the canary's share goes to it")
    for number in sorted(asked.keys() - good.keys() - bad.keys()):
        refused[str(number)] = f"{asked[number]}, but there is no such version"
    return refused


def _routing(good: Mapping[int, ModelReference], wanted: set[int], rules: Rules) -> dict[str, Any]:
    labels = {label: good[number].version for label, number in rules.labels.items() if number in wanted}
    canary = rules.canary
    if canary is None or canary.version not in wanted:
        return {"labels": labels, "canary": None}
    return {"labels": labels, "canary": {"version": good[canary.version].version, "share": canary.share}}
