"""Entry scripts, run in the process of a benchmark."""

from importlib import import_module


def run_stage(name: str, *options: object) -> None:
    """Run an entry script, such as "6_retrieval.train", with options as on its command line."""
    import_module(f"perspective.{name}").main([str(one) for one in options])
