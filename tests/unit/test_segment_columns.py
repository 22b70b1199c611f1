"""Which properties get columns of their own in a segment."""

from nimbus_server.segments.columns import find_paths


def test_of_paths_that_differ_in_the_case_of_letters_one_gets_columns() -> None:
    texts = [('{"Plan": "a", "plan": "b", "PLAN": "c", "other": 1}', "{}"), ('{"plan": "d"}', '{"plan": 1}')]
    assert find_paths(texts) == ["props.plan", "context.plan", "props.other"]
