"""Tables of a page: estimates, counts that must not be shown, and whatever a result holds."""

from __future__ import annotations

from audit_result import estimate, p_values

from medvlm_probe.report.cells import TableStyle
from medvlm_probe.report.tables import make_table, tables_of

STYLE = TableStyle({"pleural_effusion": "Pleural effusion"})


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_an_estimate_shows_value_interval_n_and_groups() -> None:
    table = make_table([{"label": "pleural_effusion", "auroc": estimate(0.8123, 0.0511)}], "c", STYLE)
    assert table.headings == ("Label", "AUROC", "n", "Groups")
    assert texts(table) == [["Pleural effusion", "0.812 [0.761, 0.863]", "180", "150"]]
    assert table.numeric == (False, True, True, True)


def test_sizes_stand_below_where_a_row_has_several() -> None:
    row = {"label": "edema", "recall": estimate(0.7, n=40, n_groups=40), "auroc": estimate(0.8)}
    table = make_table([row], "c", STYLE)
    assert table.headings == ("Label", "Recall", "AUROC")
    assert [cell.note for cell in table.rows[0]] == ["", "n 40", "n 180, 150 groups"]


def test_undefined_unreliable_and_tests() -> None:
    rows = [
        {"label": "a", "auroc": estimate(None), "difference": p_values(0.0321)},
        {"label": "b", "auroc": estimate(0.5, method="jackknife; interval unreliable"), "difference": p_values(1e-5)},
        {"label": "c", "auroc": estimate(0.5) | {"low": None, "high": None}, "difference": None},
    ]
    table = make_table(rows, "c", STYLE)
    assert [row[1:3] for row in texts(table)] == [
        ["–", "p 0.032"],
        ["0.500 [0.450, 0.550] ?", "p < 0.0001"],
        ["0.500", "–"],
    ]
    assert [row[2].note for row in table.rows] == ["corrected 0.16", "corrected < 0.0001", ""]
    assert any("unreliable" in note for note in table.notes)


def test_small_cells_cannot_be_seen_or_subtracted() -> None:
    row = {
        "label": "hernia",
        "n_positive": 3,
        "n_negative": 194,
        "n_unknown": 0,
        "prevalence": 0.01523,
        "threshold": 0.4,
    }
    row |= {"auroc": estimate(0.91, n=197, n_groups=150)}
    table = make_table([row], "c", STYLE)
    assert texts(table) == [["Hernia", "under 10", "≈ 190", "0", "too few", "0.400", "too few", "≈ 200", "≈ 150"]]
    assert len(table.notes) == 2
    shown = make_table([row], "c", TableStyle(small_cells=True))
    assert texts(shown)[0][1:4] == ["3", "194", "0"]


def test_few_groups_are_too_few_although_images_are_many() -> None:
    table = make_table([{"label": "edema", "recall": estimate(0.7, n=40, n_groups=9)}], "c", STYLE)
    assert texts(table) == [["Edema", "too few", "40", "under 10"]]


def test_counts_of_other_things_than_people_may_be_small() -> None:
    table = make_table([{"test": "mmd", "n_permutations": 9, "n_shared_groups": 3}], "c", STYLE)
    assert texts(table) == [["Squared MMD", "9", "under 10"]]


def test_counts_of_agreement_are_counts_of_people() -> None:
    row = {"label": "edema", "n_both": 3, "n_only_a": 0, "n_only_b": 1, "n_neither": 96}
    assert texts(make_table([row], "c", STYLE)) == [["Edema", "under 10", "0", "under 10", "≈ 100"]]


def test_nested_records_become_columns_and_tables() -> None:
    value = {
        "sentence": "Not in a table.",
        "share": estimate(0.1),
        "n_left_out": 4,
        "methods": [{"method": "knn", "auroc": estimate(0.7), "chance": {"uniform": 0.5}}],
        "baselines": {"chance": {"f1": estimate(0.2)}, "prior": {"f1": estimate(0.3)}},
        "deep": {"rows": [{"label": "edema", "parts": [{"k": 1}]}]},
    }
    found = {table.caption: table for table in tables_of(value, "Measured", STYLE)}
    assert list(found) == [
        "Measured",
        "Measured: methods",
        "Measured: baselines",
        "Measured: deep: rows",
        "Measured: deep: rows: parts",
    ]
    assert texts(found["Measured"]) == [["Share", "0.100 [0.050, 0.150]"], ["Images left out", "under 10"]]
    assert found["Measured: methods"].headings == ("Method", "AUROC", "Chance: anywhere", "n", "Groups")
    assert [row[0] for row in texts(found["Measured: baselines"])] == ["Chance", "Prior"]
    assert texts(found["Measured: deep: rows: parts"]) == [["Edema", "1"]]


def test_identifiers_are_shown_as_pseudonyms_only() -> None:
    rows = [
        {"image": "img-51c5609d", "patient": "Doe^Jane"},
        {"image": "images/1.png", "patient": "patient-00aa11bb22"},
    ]
    assert texts(make_table(rows, "c", STYLE)) == [["img-51c5609d", "(left out)"], ["(left out)", "patient-00aa11bb22"]]


def test_a_long_table_says_that_it_is_cut() -> None:
    table = make_table([{"label": f"label_{k}", "score": 0.5} for k in range(99)], "c", STYLE)
    assert len(table.rows) == 40
    assert table.notes == ("The first 40 of 99 rows; all of them are in the run's files.",)


def test_nothing_to_show_is_no_table() -> None:
    assert make_table([], "c", STYLE) is None
    assert make_table([{"label": None, "x": ""}], "c", STYLE) is None
