from aurora_m.safety import load_taxonomy


def test_taxonomy_has_the_six_concerns_of_the_order():
    assert list(load_taxonomy()) == ["harm", "cyber", "cbrn", "illegal", "privacy", "evasion"]


def test_every_concern_is_described_in_one_sentence_and_says_what_a_good_refusal_does():
    for concern in load_taxonomy().values():
        assert concern.name and concern.description.endswith(".") and concern.description.count(". ") == 0
        assert concern.refusal.endswith(".")
