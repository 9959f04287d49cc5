from click.testing import CliRunner

from zoo.training import train


def test_an_unknown_recipe_is_a_usage_error() -> None:
    result = CliRunner().invoke(train.main, ["--recipe", "tpu"])
    assert result.exit_code == 2
    assert "'cpu'" in result.output
