import json
import os
import random
from dataclasses import replace

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.corpus.fields import parse_template
from curate.corpus.inputs import find_inputs
from curate.corpus.named_targets import known_targets, list_targets
from curate.corpus.split import split_items
from curate.corpus.targets import load_target
from curate.errors import CurateError
from curate.settings import Settings, TargetSettings
from curate.stages.workspace import located, note_target, ranked_target, target_files
from curate.store.fingerprint import digest_texts
from curate.store.places import also_there

WORDS = ["group", "ring", "field", "module", "ideal", "kernel"]
WORDS += ["image", "order", "prime", "finite", "cyclic", "normal"]


def items(number):
    return [
        " ".join(WORDS[(n * 7 + k * (n % 5 + 1)) % len(WORDS)] for k in range(9))
        + f" {WORDS[n % 12]}"
        for n in range(number)
    ]


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    return path


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv("CURATE_DATA_DIR", raising=False)


def proofnet(root, *, valid=3, test=2):
    for split, number in (("valid", valid), ("test", test)):
        records = [{"nl_statement": f"{split} {n}", "formal_statement": f"theorem {n}"}
                   for n in range(number)]  # fmt: skip
        write(root / "proofnet" / f"{split}.jsonl", records)


@pytest.mark.parametrize("below", ["", "targets"])
def test_a_named_target_is_read_from_a_folder_with_its_own_rendering(tmp_path, below, monkeypatch):
    proofnet(tmp_path / below)
    target = load_target(TargetSettings(name="proofnet", data_dir=str(tmp_path)))
    assert target.select[0] == "informal statement valid 0 formal statement theorem 0"
    assert (len(target.select), len(target.eval)) == (3, 2)
    assert target.select_digest == digest_texts(target.select)
    assert target.eval_digest == digest_texts(target.eval)
    assert target.licence == "MIT"
    monkeypatch.setenv("CURATE_DATA_DIR", str(tmp_path))
    assert load_target(TargetSettings(name="proofnet")) == target


def test_a_file_is_halved_by_item_with_a_seed_that_is_said(tmp_path):
    path = write(tmp_path / "mine.jsonl", [{"q": text, "a": n} for n, text in enumerate(items(40))])
    target = load_target(TargetSettings(name=str(path), template="{q}: {a}"))
    assert target.name == "mine"
    assert not set(target.select) & set(target.eval)
    assert len(target.select) + len(target.eval) == 40
    assert "seed 0" in target.origin
    again = load_target(TargetSettings(name=str(path), template="{q}: {a}", seed=1))
    assert again.select != target.select


def test_a_target_of_two_files(tmp_path):
    one = write(tmp_path / "s.jsonl", [{"body": "a"}])
    two = write(tmp_path / "e.jsonl", [{"body": "b"}, {"body": "c"}])
    target = load_target(TargetSettings(name=f"pair={one},{two}", text="body"))
    assert (target.name, target.select, target.eval) == ("pair", ("a",), ("b", "c"))


def test_a_path_with_an_equals_sign_is_no_name_and_a_file(tmp_path):
    (tmp_path / "lang=en").mkdir()
    path = write(tmp_path / "lang=en" / "mine.jsonl", [{"text": text} for text in items(9)])
    assert load_target(TargetSettings(name=str(path))).name == "mine"


def test_commas_and_equals_signs_in_paths_part_nothing(tmp_path, monkeypatch):
    for folder in ("a,b", "lang=en", "x=1,2"):
        (tmp_path / folder).mkdir()
        one = write(tmp_path / folder / "s,1.jsonl", [{"text": "a"}])
        two = write(tmp_path / folder / "e=2.jsonl", [{"text": "b"}])
        found = load_target(TargetSettings(name=f"pair={one},{two}"))
        assert (found.name, found.select, found.eval) == ("pair", ("a",), ("b",))
        both = write(tmp_path / folder / "both.jsonl", [{"text": text} for text in items(9)])
        assert load_target(TargetSettings(name=f"mine={both}")).name == "mine"
    # noted for later stages, it is found from anywhere, and where the project is moved to
    place = tmp_path / ".curate"
    place.mkdir()
    monkeypatch.chdir(tmp_path)
    wanted = located(TargetSettings(name="pair=x=1,2/s,1.jsonl,x=1,2/e=2.jsonl"))
    note_target(place, wanted)
    monkeypatch.chdir("/")
    assert ranked_target(place).select == ("a",)
    assert [str(two), str(tmp_path / "x=1,2" / "s,1.jsonl")] == sorted(target_files(wanted)[1:])
    with pytest.raises(CurateError, match="name one file, or select and eval file"):
        load_target(TargetSettings(name="x=a,b,c"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~nobody-of-that-name/a.jsonl", "no such file"),
        ("proofnit", "did you mean proofnet"),
        ("xyzzy", "known are arc, commonsenseqa, gsm8k"),
        ("nowhere/file.jsonl", "no such file"),
        ("a.jsonl,b.jsonl", "select file and eval file need a name .*: NAME=a.jsonl,b.jsonl$"),
        ("x=nowhere.jsonl", "no such file"),
        ("", "no target named"),
        ("hf://datasets/me/pool/a.jsonl", "only local files and hf:org/name"),
    ],
)
def test_a_wrong_name_is_said_to_be_so(name, message):
    with pytest.raises(CurateError, match=message):
        load_target(TargetSettings(name=name))


@pytest.mark.parametrize(
    ("there", "named", "how"),
    [
        ("pru\u0308fung.jsonl", "pr\u00fcfung.jsonl", "with accents in another Unicode form"),
        ("pr\u00fcfung.jsonl", "pru\u0308fung.jsonl", "with accents in another Unicode form"),
        ("Mine/Items.JSONL", "mine/items.jsonl", "with other capitals"),
        ("pru\u0308fung.jsonl", "PR\u00dcFUNG.jsonl", "with other capitals"),
    ],
)
def test_a_file_that_reads_like_the_name_is_told_of(tmp_path, there, named, how):
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    write(path, [{"text": text} for text in items(9)])
    assert load_target(TargetSettings(name=str(path))).name == path.stem
    seen = tmp_path / there.split("/")[0]
    for name in (str(tmp_path / named), f"mine={tmp_path / named}"):
        with pytest.raises(CurateError) as caught:
            load_target(TargetSettings(name=name))
        assert f"no such file (there is {seen}, {how}); " in str(caught.value)
    with pytest.raises(CurateError) as caught:
        find_inputs([str(tmp_path / named)], workspace=tmp_path)
    assert str(caught.value).endswith(f"no such file or folder (there is {seen}, {how})")


def test_nothing_is_said_to_be_there_that_is_not(tmp_path):
    for name in ("gone", "gone/x.jsonl", "x" * 300 + "/y" * 3000, "a\0b"):
        assert also_there(str(tmp_path / name)) == also_there(name) == ""


def test_a_folder_of_targets_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CurateError, match=r"nowhere: no such folder of targets; mend --data-dir"):
        list_targets(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("missing", ["valid", "test"])
def test_half_of_a_target_is_not_passed_over_for_the_hub(tmp_path, monkeypatch, missing):
    proofnet(tmp_path)
    gone = tmp_path / "proofnet" / f"{missing}.jsonl"
    gone.unlink()
    with pytest.raises(CurateError) as caught:
        load_target(TargetSettings(name="proofnet", data_dir=str(tmp_path)))
    assert str(caught.value).startswith(f"{gone}: no such file, and {gone.parent} holds the other")

    from curate.corpus import hub

    monkeypatch.setattr(hub, "find_reachable", lambda wanted: dict.fromkeys(wanted, "hub"))
    listed = {each.name: each.reach for each in list_targets(str(tmp_path), ask_hub=True)}
    assert (listed.pop("proofnet"), set(listed.values())) == ("", {"hub"})
    proofnet(tmp_path / "targets")  # a folder that holds all comes first
    assert len(load_target(TargetSettings(name="proofnet", data_dir=str(tmp_path))).select) == 3


def test_the_folder_of_targets_is_found_from_elsewhere_and_where_the_project_is_moved_to(
    tmp_path, monkeypatch
):
    proofnet(tmp_path / "project" / "data")
    place = tmp_path / "project" / ".curate"
    place.mkdir()
    monkeypatch.chdir(place.parent)
    note_target(place, located(TargetSettings(name="proofnet", data_dir="data")))
    monkeypatch.chdir("/")
    assert len(ranked_target(place).select) == 3
    moved = place.parent.rename(tmp_path / "moved")
    assert ranked_target(moved / ".curate").origin == str(moved / "data" / "proofnet")


def test_the_folder_of_targets_may_be_the_project(tmp_path, monkeypatch):
    project = tmp_path / "project"
    proofnet(project)
    (project / "in.jsonl").write_text(json.dumps({"text": " ".join(WORDS * 9)}))
    monkeypatch.chdir(project)
    settings = Settings(target=TargetSettings(data_dir="."))
    curate.index("in.jsonl")
    curate.rank("proofnet", settings=settings)
    for _ in range(2):  # the second is to replace a file in that folder
        page = curate.write_report()
    for split in ("valid", "test"):
        with pytest.raises(CurateError, match="is an input"):
            curate.write_report(out=f"proofnet/{split}.jsonl")
    monkeypatch.chdir("/")
    moved = project.rename(tmp_path / "moved") / page.parent
    assert ranked_target(moved).origin == str(tmp_path / "moved" / "proofnet")


def test_the_folder_of_targets_may_be_named_from_home(tmp_path, monkeypatch):
    proofnet(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    target = load_target(TargetSettings(name="proofnet", data_dir=f"~/{tmp_path.name}"))
    assert target.origin == str(tmp_path / "proofnet")


def test_an_empty_or_damaged_target_is_refused(tmp_path):
    proofnet(tmp_path, test=0)
    with pytest.raises(CurateError, match="its eval split is empty"):
        load_target(TargetSettings(name="proofnet", data_dir=str(tmp_path)))
    same = write(
        tmp_path / "same.jsonl", [{"text": "Show that 1 + 1 = 2."}, {"text": "show that 2 + 1 = 3"}]
    )
    with pytest.raises(CurateError, match="read alike"):
        load_target(TargetSettings(name=str(same)))
    bad = write(tmp_path / "bad.jsonl", [{"text": "x"}, {"text": None}])
    with pytest.raises(CurateError, match="null 1"):
        load_target(TargetSettings(name=str(bad)))
    with pytest.raises(CurateError, match="no field body; it has text"):
        load_target(TargetSettings(name=str(bad), text="body"))


def test_a_target_that_is_not_known_is_told_in_sentences(tmp_path):
    with pytest.raises(CurateError, match=r"is a folder; name the file in it"):
        load_target(TargetSettings(name=str(tmp_path)))
    with pytest.raises(CurateError, match=r"unknown; known are arc, .*, wmt14\. A file or hf:"):
        load_target(TargetSettings(name="zzz"))
    with pytest.raises(CurateError, match=r"unknown; did you mean gsm8k\? A file or hf:"):
        load_target(TargetSettings(name="gsm"))


def test_one_item_cannot_be_halved_and_that_is_what_is_said(tmp_path):
    for count, why in (
        (1, "it holds one item"),
        (2, "its items read alike .*"),
    ):
        write(tmp_path / "few.jsonl", [{"text": "two and two are four, always"}] * count)
        with pytest.raises(CurateError, match=f"{why}, so no eval split .* NAME=select_file"):
            load_target(TargetSettings(name=str(tmp_path / "few.jsonl")))


def test_near_identical_items_never_straddle():
    pool = items(60)
    twins = [item.upper() + "!" for item in pool] + [item + " and nothing else" for item in pool]
    select, held_out = split_items(pool + twins, seed=0)
    assert abs(len(select) - len(held_out)) <= 12
    for half, other in ((select, held_out), (held_out, select)):
        assert not {item.lower().rstrip("!") for item in half} & {item.lower() for item in other}


def test_the_split_does_not_depend_on_the_order_of_items():
    pool = items(50)
    one, two = split_items(pool, seed=3), split_items(pool[::-1], seed=3)
    assert [set(half) for half in one] == [set(half) for half in two]


def test_stock_phrases_join_nothing():
    pool = [f"prove that for every natural number it holds that {item}" for item in items(120)]
    select, held_out = split_items(pool, seed=0)
    assert len(held_out) > 40 and len(select) > 40


def test_the_registry_is_complete_and_pinned():
    for name, spec in known_targets().items():
        assert spec.name == name and spec.licence and spec.hub.count("/") == 1
        assert spec.revision == "" or (len(spec.revision) == 40 and int(spec.revision, 16))
        parse_template(spec.template)
        parse_template(spec.hub_template or spec.template)
        assert len(spec.eval) == len(spec.hub_eval) and spec.select and spec.hub_select


def test_the_list_says_what_is_at_hand(tmp_path):
    proofnet(tmp_path)
    listed = {target.name: target for target in list_targets(str(tmp_path))}
    assert listed["proofnet"].at_hand == str(tmp_path / "proofnet")
    assert listed["math"].at_hand == ""
    assert listed["math"].eval == "the other half"
    assert len(listed) == 14
    assert {name for name, target in listed.items() if target.reach} == {"proofnet"}


def test_the_list_says_what_can_be_read_now(monkeypatch):
    from curate.corpus import hub

    def cached(repo, name, **_):
        return "/cache/file" if repo == "openai/gsm8k" else None

    def answers(name):
        if name.repo == "cais/mmlu":
            raise CurateError(f"hf:{name.repo}: no such data set on the hub, or it is not public")
        return "c" * 40

    monkeypatch.setattr(hub.huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(hub, "resolve_commit", answers)
    reach = {target.name: target.reach for target in list_targets(ask_hub=True)}
    assert (reach["gsm8k"], reach["mmlu"], reach["arc"]) == ("cache", "", "hub")
    asked = []

    def silent(name):
        asked.append(name)
        raise CurateError("hf: cannot be read from the hub")

    monkeypatch.setattr(hub, "resolve_commit", silent)
    reach = {target.name: target.reach for target in list_targets(ask_hub=True)}
    assert set(reach.values()) == {"cache", ""}
    assert len(asked) == 1


NESTED = {
    "mmlu": ({"question": "Q?", "choices": ["a", "b"], "answer": 1}, "Q?\na\nb"),
    "arc": ({"question": "Q?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, "Q?\na\nb"),
    "triviaqa": ({"question": "Q?", "answer": {"value": "Paris"}}, "Q?\nParis"),
    "wmt14": ({"translation": {"de": "Tag", "en": "day"}}, "Tag\nday"),
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_nested_items_read_alike_from_json_and_parquet(tmp_path, name, ending):
    record, text = NESTED[name]
    other = json.loads(json.dumps(record).replace("Q?", "Other?").replace("Tag", "Nacht"))
    spec = known_targets()[name]
    for split in (*spec.select, *spec.eval):
        path = write(tmp_path / name / f"{split}.jsonl", [record, other])
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist([record, other]), path.with_suffix(".parquet"))
            path.unlink()
    target = load_target(TargetSettings(name=name, data_dir=str(tmp_path)))
    assert text in (*target.select, *target.eval)


def pair(tmp_path):
    rng = random.Random(0)
    word = lambda: "".join(rng.choices("abcdefgh", k=6))  # noqa: E731
    texts = [" ".join(word() for _ in range(9)) for _ in range(130)]
    one = write(tmp_path / "one.jsonl", [{"text": f"1 {text}"} for text in texts[:40]])
    two = write(tmp_path / "two.jsonl", [{"text": f"second {text} {text}"} for text in texts[40:]])
    return f"one={one}", f"two={two}"


def test_several_targets_stand_in_the_ratio_of_their_weights(tmp_path):
    one, two = pair(tmp_path)
    for weights in ((1, 1), (2, 1), (1, 5)):
        names = (f"{one}:{weights[0]}", f"{two}:{weights[1]}")
        target = load_target(TargetSettings(names=names))
        for split in (target.select, target.eval):
            first = sum(len(item) for item in split if item.startswith("1 "))
            second = sum(len(item) for item in split if item.startswith("second"))
            assert first / second == pytest.approx(weights[0] / weights[1], rel=0.1)
        assert len(set(target.select)) == len(target.select)
        together = [*target.select, *target.eval, *target.spare]
        whole = [load_target(TargetSettings(name=name)) for name in (one, two)]
        assert sorted(together) == sorted(i for part in whole for i in (*part.select, *part.eval))
        assert target.name == f"one:{weights[0]}+two:{weights[1]}"


def test_an_item_of_one_targets_eval_split_is_no_item_to_select_by(tmp_path):
    same = write(tmp_path / "same.jsonl", [{"text": "Shared item, word for word"}, {"text": "b"}])
    held = write(tmp_path / "held.jsonl", [{"text": "shared item word for word"}, {"text": "c"}])
    alone = write(tmp_path / "alone.jsonl", [{"text": "d"}])
    names = (f"x={same},{alone}", f"y={alone},{held}")
    target = load_target(TargetSettings(names=names))
    assert "Shared item, word for word" not in target.select
    assert "Shared item, word for word" in target.spare


def test_several_targets_say_which_template_rendered_which_items(tmp_path):
    shared = {"seed": 0, "template": "{text}!"}
    names = []
    for name, number in (("x", 12), ("y", 30)):
        rows = [{"text": f"{name} {n} {'word' * n}"} for n in range(number)]
        halves = [write(tmp_path / f"{name}{k}.jsonl", rows[k::2]) for k in (0, 1)]
        names.append(f"{name}={halves[0]},{halves[1]}")
    target = load_target(TargetSettings(names=(names[0], f"{names[1]}:2"), **shared))
    assert [template for template, *_ in target.templates] == ["{text}!", "{text}!"]
    for place, items in enumerate((target.select, target.eval, target.spare), start=1):
        counts = [each[place] for each in target.templates]
        assert sum(counts) == len(items)
        assert all(item.startswith("x ") for item in items[: counts[0]])
        assert all(item.startswith("y ") for item in items[counts[0] :])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("proofnet:0", "gsm8k"), "a weight is a positive number"),
        (("proofnet", "proofnet:2"), "named twice"),
        (("proofnet", "gsm9k"), "did you mean"),
    ],
)
def test_wrong_weights_are_named(tmp_path, names, message):
    proofnet(tmp_path)
    with pytest.raises(CurateError, match=message):
        load_target(TargetSettings(names=names, data_dir=str(tmp_path)))


def test_a_target_without_a_known_revision_is_resolved_and_recorded(tmp_path, monkeypatch):
    from curate.corpus import hub, targets

    spec = replace(known_targets()["sciq"], revision="")
    monkeypatch.setattr(targets, "known_targets", lambda: {"sciq": spec})
    monkeypatch.setattr(hub, "resolve_commit", lambda name: "d" * 40)
    row = {"support": "s", "question": "q", "correct_answer": "a"}
    asked = []

    def fetched(repo, name, *, revision):
        asked.append(revision)
        return write(tmp_path / f"{len(asked)}.jsonl", [row])

    monkeypatch.setattr(hub, "fetch_file", fetched)
    target = load_target(TargetSettings(name="sciq"))
    assert target.origin == "hf:allenai/sciq@" + "d" * 40
    assert asked == ["d" * 40] * 2


def test_a_hub_that_cannot_be_reached_is_said_with_what_to_do(monkeypatch):
    import huggingface_hub

    from curate.corpus.hub import parse_hub_name

    def refuse(*_, **__):
        raise ConnectionError("no network here\n" * 40)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    for name in ("gsm8k", "hf:openai/gsm8k"):
        with pytest.raises(CurateError, match=r"hub \(no network .*(no|network|here) …\); .*files"):
            load_target(TargetSettings(name=name))
    assert parse_hub_name("hf:a/b@v1").revision == "v1"
    with pytest.raises(CurateError, match="hf:a/b#0k: a sample of no record"):
        parse_hub_name("hf:a/b#0k")
    with pytest.raises(CurateError, match="not a hub name"):
        parse_hub_name("hf:a b")


def test_a_hub_data_set_is_spooled_once(tmp_path, monkeypatch):
    from curate.corpus import hub
    from curate.corpus.inputs import find_inputs

    asked = []

    def rows(name, *, commit):
        asked.append(commit)
        return iter([{"text": f"row {n}"} for n in range(5)])

    monkeypatch.setattr(hub, "resolve_commit", lambda name: "c" * 40)
    monkeypatch.setattr(hub, "read_hub_rows", rows)
    first = find_inputs(["hf:org/name:main:train"], workspace=tmp_path)
    assert find_inputs(["hf:org/name:main:train"], workspace=tmp_path) == first
    assert asked == ["c" * 40]
    assert first[0].source == "name-main-train"
    assert len(list((tmp_path / "sources").iterdir())) == 2


def test_hub_data_sets_of_one_name_are_two_sources(tmp_path, monkeypatch):
    from curate.corpus import hub
    from curate.corpus.inputs import find_inputs

    monkeypatch.setattr(hub, "resolve_commit", lambda name: "c" * 40)
    monkeypatch.setattr(hub, "read_hub_rows", lambda name, *, commit: iter([{"text": name.repo}]))
    names = ["hf:a/pool", "hf:b/pool", "hf:pool", "hf:a/other", "hf:a/other#20"]
    found = [file.source for file in find_inputs(names, workspace=tmp_path)]
    assert found == ["a-pool", "b-pool", "other", "other", "pool"]


DATA_DIR = os.environ.get("CURATE_DATA_DIR", "")


@pytest.mark.skipif(not DATA_DIR, reason="needs the real targets")
def test_the_real_targets_are_read():
    for name, splits in {
        "proofnet": (185, 186),
        "minif2f": (244, 244),
        "gsm8k": (7473, 1319),
    }.items():
        settings = TargetSettings(name=name, data_dir=DATA_DIR)
        target = load_target(settings)
        assert (len(target.select), len(target.eval)) == splits


def test_a_split_that_a_data_set_does_not_have_is_told_how_to_name_one(monkeypatch):
    from curate.corpus import hub

    def refused(*_, **__):
        raise ValueError("Bad split: nope. Available splits: ['train']")

    monkeypatch.setattr(hub.datasets, "load_dataset", refused)
    with pytest.raises(CurateError) as caught:
        next(hub.read_hub_rows(hub.HubName("a/b", "", "nope", ""), commit="0" * 40))
    assert str(caught.value) == (
        "hf:a/b: cannot be read from the hub (Bad split: nope. Available splits: ['train']); "
        "write hf:a/b:CONFIG:SPLIT"
    )
