import math
import operator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_tui.runs.filter import RUN_STATES, VERDICTS, Bare, Comparison, Filter, FilterError, Term, Text, parse

NOW = 1e9
METRICS = ("phi", "kappa", "loss", "drift_rolling", "a b", 'q"<')


@dataclass(frozen=True)
class Run:
    """A run as a filter sees it."""

    name: str = "charlie-0412"
    id: str = "20261122-235014-1f0a9c"
    program: str = "qig-core train"
    state: str = "live"
    worst: str = "ok"
    numbers: dict[str, float] = field(default_factory=lambda: {"phi": 0.75, "loss": 2.0, "step": 1000.0, "age": 60.0})

    def number(self, key: str, now: float) -> float | None:
        return self.numbers.get(key)


def fits(text: str, run: Run | None = None, metrics=METRICS) -> bool:
    return parse(text, metrics).fits(run or Run(), NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "charlie",
        "CHARLIE-04",
        "1f0a9c",
        "state:live",
        "STATE:LIVE,busy",
        "state!=exited",
        "name~Charlie",
        "run~charlie",
        "name:charlie-0412",
        'name:"charlie-0412",other',
        "id~1122",
        'program:"qig-core train"',
        "program~train",
        "phi>0.7 loss<=2 step>=1000 age<2h",
        "Φ>.7",
        "φ>7e-1",
        "PHI>0.7",
        "age<1m30s age>=1m age=60",
        "worst:ok",
        "alerts:ok,warning",
        "safety:ok",
        "-worst:critical",
        "-phi>0.8",
        "phi!=0.5 phi=0.75",
        "state:busy OR state:live phi>0.7",
        "phi>0.7 state:busy OR state:live",
        "-kappa>0",
    ],
)
def test_a_run_fits(text):
    assert fits(text)


@pytest.mark.parametrize(
    "text",
    [
        "delta",
        "state:busy",
        "-state:live",
        "name:charlie",
        "phi>0.75",
        "phi>0.7 loss<2",
        "age>1h",
        "worst:critical",
        "state:busy OR state:live phi<0.7",
        "kappa>0",
        "kappa<=0",
        "kappa!=0",
        "drift<9",
        "share>0",
    ],
)
def test_a_run_does_not_fit(text):
    assert not fits(text)


def test_or_binds_tighter_than_a_space():
    assert parse("a OR b c") == Filter(((Term(Bare("a")), Term(Bare("b"))), (Term(Bare("c")),)))


def test_a_share_is_a_number_or_a_percentage():
    half = Run(numbers={"share": 0.5})
    assert fits("share>=50% share<0.6", half)
    assert not fits("share>50%", half)


def test_what_is_not_a_number_can_be_looked_for():
    broken = Run(numbers={"loss": math.nan, "phi": math.inf})
    assert fits("loss=nan phi=inf loss!=1", broken)
    assert not fits("loss<1 OR loss>=1 OR loss!=nan", broken)


def test_quotes_make_a_word_of_anything():
    run = Run(name='two words: "OR" <b>')
    assert fits('"two words"', run)
    assert fits('"OR"', run)
    assert fits(r'"\"or\""', run)
    assert fits('name~"words: "', run)
    assert fits('"<b>"', run)
    assert fits('"a b">1 "q\\"<"=2', Run(numbers={"a b": 2.0, 'q"<': 2.0}))


def test_a_number_that_some_run_calls_drift_is_meant_before_the_short_name():
    assert parse("drift<1", {"drift", "drift_rolling"}) == Filter(((Term(Comparison("drift", "<", 1.0)),),))
    assert parse("drift<1", {"drift_rolling"}) == Filter(((Term(Comparison("drift_rolling", "<", 1.0)),),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ph>0.7", "no run has ph; nearest is phi"),
        ("nme~x", "nearest is name"),
        ("12:30", "quoted"),
        ("phi:0.7", "phi is a number: phi>0.7"),
        ("phi~x", "phi is a number"),
        ("phi>", "nothing is no number: phi>0.7"),
        ("phi>high", "high is no number"),
        ("age<2x", "2x is no duration: age<90s"),
        ("state:lve", "no state is lve; nearest is live"),
        ("state:l", "nearest is live"),
        ("state:", "state:live"),
        ("state:live,", "a value is missing"),
        ("state>1", "state is a text"),
        ("worst:bad", "none, unarmed, ok, warning, critical"),
        (">0.7", "a key is missing"),
        ("-", "a term is missing after -"),
        ("OR a", "OR stands between two terms"),
        ("a OR OR b", "OR stands between two terms"),
        ("a OR", "a term is missing after OR"),
        ('"a', 'a " is not closed'),
        ('""', "empty word"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_right(text, said):
    with pytest.raises(FilterError) as caught:
        parse(text, METRICS)
    assert said in str(caught.value)


def test_before_the_runs_are_read_any_metric_may_be_one():
    assert not parse("gary_phase>1").fits(Run(), NOW)
    with pytest.raises(FilterError):
        parse("gary_phase>1", METRICS)
    assert not parse("kappa>1", {"phi"}).fits(Run(), NOW)


@given(st.text(alphabet=st.one_of(st.sampled_from('-"\\ :~<>=!,O Rphistate.%17hsm'), st.characters()), max_size=60))
def test_any_text_is_a_filter_or_is_refused(text):
    for metrics in (None, METRICS):
        try:
            found = parse(text, metrics)
        except FilterError:
            pass
        else:
            found.fits(Run(), NOW)
            assert parse(str(found), metrics) == found


words = st.text(min_size=1, max_size=12)
numbers = st.floats() | st.integers(-3, 3).map(float)
tests = st.one_of(
    words.map(Bare),
    st.builds(Text, st.sampled_from(["name", "id", "program"]), st.sampled_from(":~"), st.tuples(words)),
    st.builds(Text, st.just("state"), st.just(":"), st.lists(st.sampled_from(RUN_STATES), min_size=1).map(tuple)),
    st.builds(Text, st.just("worst"), st.just(":"), st.lists(st.sampled_from(VERDICTS), min_size=1).map(tuple)),
    st.builds(
        Comparison,
        st.sampled_from([*METRICS, "step", "total", "share", "age"]),
        st.sampled_from(["<", "<=", ">", ">=", "=", "!="]),
        numbers,
    ),
)
filters = st.lists(st.lists(st.builds(Term, tests, st.booleans()), min_size=1, max_size=3).map(tuple), max_size=4).map(
    lambda groups: Filter(tuple(groups))
)
runs = st.builds(
    Run,
    name=words,
    id=words,
    program=words,
    state=st.sampled_from(RUN_STATES),
    worst=st.sampled_from(VERDICTS),
    numbers=st.dictionaries(st.sampled_from([*METRICS, "step", "age"]), numbers),
)


@given(filters)
def test_a_filter_reads_back_from_its_text(found):
    assert parse(str(found), METRICS) == found


def plainly(term: Term, run: Run) -> bool:
    test = term.test
    if isinstance(test, Bare):
        holds = any(test.text.casefold() in text.casefold() for text in (run.name, run.id))
    elif isinstance(test, Text):
        found = getattr(run, test.key).casefold()
        wanted = [value.casefold() for value in test.values]
        holds = found in wanted if test.how == ":" else any(value in found for value in wanted)
    else:
        compare = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
        value = run.numbers.get(test.key)
        if value is None:
            holds = False
        elif math.isnan(value) and math.isnan(test.value):
            holds = "=" in test.how and test.how != "!="
        elif test.how == "!=":
            holds = not value == test.value
        else:
            holds = compare[test.how](value, test.value)
    return not holds if term.negated else holds


@given(filters, runs)
def test_a_filter_agrees_with_plain_evaluation(found, run):
    for group in found.groups:
        for term in group:
            assert term.fits(run, NOW) == plainly(term, run)
    assert found.fits(run, NOW) == all(any(plainly(term, run) for term in group) for group in found.groups)


def test_blanks_around_a_comparison_mean_nothing():
    assert parse("phi > 0.8  age<  2h") == parse("phi>0.8 age<2h")
    assert parse("phi >= 0.8 OR loss = 1") == parse("phi>=0.8 OR loss=1")
