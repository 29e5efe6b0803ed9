"""A rule that raises or answers nonsense stops the run at once, and a mistake in a policy file is one line."""

import re

import numpy as np
import pytest
from numba import config

from niyama import PAPER_CLASSES, Policy, load_policy
from niyama.own_rules import RuleError, source_of
from niyama.rules import budget_rule, doomed_rule, due_rule, rank_rule
from niyama.scheduler import Arrival, Scheduler, Timing
from niyama.sim import Requests, shared, simulate
from niyama.step import CHUNK
from tests.helpers.reference_formulas import ROOFLINE

REQUESTS = Requests(
    PAPER_CLASSES,
    np.array([0, 1, 2]),
    np.zeros(3),
    np.array([3000, 2600, 2700]),
    np.full(3, 5),
    np.ones(3, bool),
)
TABLE = np.arange(3.0)


@rank_rule
def divides_by_nothing(job, alpha):
    return job.deadline_s / (job.prefill_left - job.prefill_left)


@rank_rule
def raises(job, alpha):
    if job.prompt_tokens > 2650:
        raise ValueError("too long")
    return job.deadline_s


@rank_rule
def beyond_the_table(job, alpha):
    return TABLE[job.prompt_tokens]


@rank_rule
def endless(job, alpha):
    return np.inf


@budget_rule
def takes_tokens_away(model, batch, limits, prefix, slack_s):
    return -30


@budget_rule
def no_number(model, batch, limits, prefix, slack_s):
    return limits.margin * np.nan


@doomed_rule
def asserts(forecast):
    if not forecast.started:  # as `assert` does, which pytest rewrites into what numba does not know
        raise AssertionError("not started")
    return False


@due_rule
def asks_too_much(decode, step):
    if decode.interactive and step.decodes == 1:
        raise ValueError("too much")
    return True


FAULTY = [
    ({"rank": divides_by_nothing}, "ZeroDivisionError: float division by zero", 1),
    ({"rank": raises}, "ValueError: too long", 2),
    ({"rank": beyond_the_table}, "IndexError: index 3000 is out of bounds", 1),
    ({"rank": endless}, "answers inf", None),
    ({"prefill_budget": takes_tokens_away}, "answers -30", None),
    ({"prefill_budget": no_number}, "answers nan", None),
    ({"doomed": asserts}, "AssertionError: not started", 2),
    ({"due": asks_too_much}, "ValueError: too much", 2),
]
faulty = pytest.mark.parametrize(("rules", "words", "line"), FAULTY, ids=[words[:20] for _, words, _ in FAULTY])


def stops(act, rules, words, line):
    (rule,) = rules.values()
    code = source_of(rule).__code__
    with pytest.raises(RuleError) as stop:
        act(Policy("mine", **rules))
    text = str(stop.value)
    assert "\n" not in text and words in text and text.startswith("policy 'mine': test_rule_faults.py, line ")
    said = int(re.search(r"line (\d+)", text).group(1))
    assert said == (code.co_firstlineno if line is None else code.co_firstlineno + 1 + line)


@faulty
@pytest.mark.parametrize("overlapped", [False, True])
def test_a_faulty_rule_stops_a_simulation(rules, words, line, overlapped, capfd):
    def act(policy):
        simulate(shared(policy), REQUESTS, ROOFLINE, ROOFLINE, overlapped=overlapped)

    stops(act, rules, words, line)
    assert capfd.readouterr() == ("", "")  # once, and not by numba


@faulty
def test_a_faulty_rule_stops_an_engine(rules, words, line):
    def act(policy):
        scheduler = Scheduler(policy, ROOFLINE, kv_tokens=10_000, apps=1)
        row = scheduler.arrive(Arrival(0.0, 3000, 6.0, 0.05, True, True, 0))
        scheduler.step(Timing(0.0, 0.0, 0.0, 0))
        scheduler.report(CHUNK, row, 3000)
        scheduler.step(Timing(1.0, 0.0, 1.0, 3000))

    stops(act, rules, words, line)


def test_a_sound_rule_of_ones_own_decides_as_the_built_in_one():
    """The guard changes nothing: EDF by name and EDF written anew give the same times."""

    @rank_rule
    def deadline_first(job, alpha):
        return job.deadline_s

    @doomed_rule
    def missed(view):
        return view.earliest_s > view.deadline_s

    edf = load_policy("niyama-dc-er")
    own = Policy("own", rank=deadline_first, doomed=missed)
    runs = [simulate(shared(policy), REQUESTS, ROOFLINE, ROOFLINE) for policy in (edf, own)]
    assert runs[0].token_s.tobytes() == runs[1].token_s.tobytes()


HEAD = "from niyama import Policy\nfrom niyama.rules import budget_rule, rank_rule\n"
MISTAKES = {
    "a field that is not there": (
        "@rank_rule\ndef r(job, alpha):\n    return job.dealine_s\n",
        5,
        "did you mean 'deadline_s'?",
    ),
    "a client": ("@rank_rule\ndef r(job, alpha):\n    return job.client\n", 5, "Job has no 'client'"),
    "state": (
        "n = [0]\n@rank_rule\ndef r(job, alpha):\n    n[0] += 1\n    return n[0]\n",
        6,
        "rules keep no state: 'n'",
    ),
    "an array to count in": (
        "import numpy as np\nn = np.zeros(64)\n@rank_rule\ndef r(job, alpha):\n    return n[job.tenant]\n",
        7,
        "'n' is an array of zeros, in which nobody counts, for rules keep no state",
    ),
    "a global": (
        "n = 0\n@rank_rule\ndef r(job, alpha):\n    global n\n    return 1.0\n",
        6,
        "rules keep no state: 'n'",
    ),
    "a dictionary": ("d = {}\n@rank_rule\ndef r(job, alpha):\n    return len(d)\n", 6, "rules keep no state: 'd'"),
    "a change of the job": (
        "@rank_rule\ndef r(job, alpha):\n    job.arrival_s = 0\n    return 1.0\n",
        5,
        "'job' is what it is",
    ),
    "too few arguments": ("@rank_rule\ndef r(job):\n    return 1.0\n", 3, "write r(job, alpha)"),
    "a name that is nowhere": ("@rank_rule\ndef r(job, alpha):\n    return alhpa\n", 5, "did you mean 'alpha'?"),
    "brackets": ("@rank_rule()\ndef r(job, alpha):\n    return 1.0\n", None, "write @rank_rule alone"),
    "a star": ("@rank_rule\ndef r(*a):\n    return 1.0\n", 3, "write r(job, alpha)"),
    "async": ("@rank_rule\nasync def r(job, alpha):\n    return 1.0\n", 3, "write a def that returns"),
    "a word for a number": ("r = None\nPolicy('a', margin='big')\n", 4, "margin is 'big'; it must be a number"),
    "a number for a name": ("r = None\nPolicy(3)\n", 4, "name is 3; it must be a string"),
    "a lambda": ("r = rank_rule(lambda job, alpha: 1.0)\n", 3, "a lambda is no rule"),
    "no decorator": ("def r(job, alpha):\n    return 1.0\n", 3, "@rank_rule above it"),
    "another decorator": ("@budget_rule\ndef r(m, b, l, p, s):\n    return 1\n", None, "a rule for prefill_budget"),
    "a string": ("r = 'edf'\n", None, "rank is 'edf'"),
    "a syntax error": ("def r(job, alpha:\n", 3, "never closed"),
    "an exception": ("x = 1\n1 / 0\n", 4, "ZeroDivisionError: division by zero"),
    "an exit": ("exit()\n", 3, "SystemExit"),
    "a module that is not there": ("import no_such_module\n", 3, "No module named 'no_such_module'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_a_policy_file_is_one_line(case, tmp_path):
    body, line, words = MISTAKES[case]
    file = tmp_path / "mine.py"
    file.write_text(HEAD + body + "mine = Policy('mine', rank=r)\n")
    with pytest.raises(ValueError) as refusal:
        load_policy(f"{file}:mine")
    text = str(refusal.value)
    assert "\n" not in text and words in text and (line is None or f"mine.py, line {line}" in text)


IMPURE = {
    "np.random.rand()": ("import numpy as np\n", "uses np.random of numpy.random;"),
    "rand()": ("from numpy.random import rand\n", "uses rand of numpy.random;"),
    "random.random()": ("import random\n", "uses random;"),
    "now()": ("from time import monotonic as now\n", "uses now of time;"),
    "datetime.now().second": ("from datetime import datetime\n", "uses datetime;"),
    "helper()": (
        "import numpy as np, numba\n@numba.njit\ndef helper():\n    return np.random.rand()\n",
        "uses np.random",
    ),
    "plain()": ("import time\ndef plain():\n    return time.time()\n", "uses time;"),
    "print(alpha) or alpha": ("", "a rule prints nothing"),
}


@pytest.mark.parametrize("answer", IMPURE)
def test_a_rule_has_no_clock_no_chance_and_no_output(answer, tmp_path):
    before, words = IMPURE[answer]
    file = tmp_path / "mine.py"
    body = f"{before}@rank_rule\ndef r(job, alpha):\n    return {answer}\nmine = Policy('mine', rank=r)\n"
    file.write_text(HEAD + body)
    with pytest.raises(ValueError) as refusal:
        load_policy(f"{file}:mine")
    at = body.split("return")[0].count("\n") + HEAD.count("\n") + 1
    assert str(refusal.value).startswith(f"mine.py, line {at}: ") and words in str(refusal.value)


def test_constants_drawn_before_and_functions_of_math_are_no_chance(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        f"{HEAD}import math\nimport numpy as np\nA = np.random.default_rng(1).random()\nB = np.arange(3.0)\n"
        "@rank_rule\ndef r(job, alpha):\n    return math.exp(alpha) + np.sqrt(A) + B[0] + abs(job.arrival_s)\n"
        "mine = Policy('mine', rank=r)\n"
    )
    assert load_policy(f"{file}:mine").name == "mine"


@pytest.mark.skipif(config.DISABLE_JIT, reason="plain Python takes what numba does not")
@pytest.mark.parametrize("answer", ["sorted([alpha], key=str)[0]", "open('x')"])
def test_what_numba_cannot_compile_is_one_line(answer, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}@rank_rule\ndef r(job, alpha):\n    return {answer}\nmine = Policy('mine', rank=r)\n")
    with pytest.raises(ValueError, match=r"^mine\.py, line \d: numba cannot compile this: [^\n]+$"):
        load_policy(f"{file}:mine")


@pytest.mark.skipif(config.DISABLE_JIT, reason="plain Python takes what numba does not")
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("job.interactive", "bool"),
        ("None", "none"),
        ("(1.0, 2.0)", "UniTuple"),
        ("'x'", ""),
        ("alpha > 1", "bool"),
    ],
)
def test_a_rank_that_is_no_number_is_called_that(answer, kind, tmp_path):
    (file := tmp_path / "mine.py").write_text(f"{HEAD}@rank_rule\ndef r(job, alpha):\n    return {answer}\n")
    with pytest.raises(ValueError, match=rf"^mine\.py, line \d: 'r' returns {kind}.*; return a number$"):
        load_policy(f"{file}:mine")


def test_a_tuple_of_policies_is_refused_in_short(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from niyama import Policy\nmine = (Policy('a'), Policy('b'))\n")
    with pytest.raises(ValueError, match=r"mine' is a tuple; it must be a niyama Policy$"):
        load_policy(f"{file}:mine")


def test_what_a_policy_file_prints_is_no_result(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("from niyama import Policy\nprint('loading')\nmine = Policy('mine')\n")
    load_policy(f"{file}:mine")
    assert capsys.readouterr() == ("", "loading\n")


def test_a_name_that_the_file_lacks_is_answered_with_those_it_has(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from niyama import Policy\nmine = Policy('mine')\n")
    with pytest.raises(ValueError, match=r"defines no 'mime'; did you mean 'mine'\? its policies are mine"):
        load_policy(f"{file}:mime")
