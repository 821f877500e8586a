"""framelens COMMAND: probes a causal video diffuser, plans its separation, trains, times and draws.

    framelens probe --model dense-tiles
    framelens runs
    framelens plan --help

A command's module is imported when the command is given, so this help answers at once.
"""

import difflib
import sys
from importlib import import_module

from framelens.records import package_version
from framelens.records.commands import exits_as

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "measure": {
        "check": ("probes.check.__main__", "test whether a model keeps the contract"),
        "estimate": ("probes.estimate.__main__", "state memory and passes of a probe before it is started"),
        "probe": ("probes.__main__", "measure a model on clips, or resume a stopped run"),
        "plan": ("probes.plan.__main__", "state whether a probed model can be separated, and where"),
        "latents": ("probes.latents.__main__", "encode videos and prompts, decode generated videos"),
        "emergence": ("probes.emergence", "measure at which training step each probed quantity appears"),
    },
    "look": {
        "runs": ("reports.listing", "list, export or delete runs"),
        "figures": ("reports.__main__", "draw figures and page of finished runs"),
        "compare": ("reports.compare", "lay two or more runs side by side on one page"),
    },
    "train and time": {
        "train": ("training.__main__", "train a network, or resume a stopped training"),
        "estimate --train": ("training.estimate", "state the memory of a training before it is started"),
        "evaluate": ("training.evaluate", "score the videos that models generate"),
        "split": ("training.split", "act on a plan: separate, fine-tune, distil, score, time"),
        "compare-train": ("training.compare", "train dense and separated networks at an equal budget"),
        "bench scd": ("benchmarks.scd.__main__", "time dense against separated networks"),
        "bench overhead": ("benchmarks.overhead.__main__", "time a probed rollout against a bare one"),
        "bench growth": ("benchmarks.growth.__main__", "measure how the costs of probing grow"),
        "bench sampler": ("benchmarks.sampler.__main__", "time our sampler against a plain one"),
        "bench training": ("benchmarks.training.__main__", "time a training step, dense against separated"),
        "bench gpu": ("benchmarks.gpu.__main__", "measure on a GPU everything that only a GPU can show"),
    },
    "shell": {"completion": ("completion", "print a script that completes these commands in your shell")},
}  # fmt: skip
"""By group: every command with its module, which has `main(arguments)` and `parser()`, and what it does."""

QUESTION = "Where does a causal video diffuser reason over time, and can that be separated from denoising?"
MODULES = {name: module for group in COMMANDS.values() for name, (module, _) in group.items()}


@exits_as()
def main(arguments: list[str]) -> int:
    """Exit status: that of the command; 2 for an unknown one."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if arguments[0] == "--version":
        print(f"framelens {package_version()}")
        return 0
    name = find_command(arguments)
    rest = list(arguments)
    for word in name.split():
        rest.remove(word)
    return import_module(f"framelens.{MODULES[name]}").main(rest)


def find_command(arguments: list[str]) -> str:
    """The command that the first words name; ValueError, with the nearest commands, for another word.

    A command with an option in its name is found wherever the option stands.
    """
    for name, flag in (name.split() for name in MODULES if " --" in name):
        if arguments[0] == name and flag in arguments:
            return f"{name} {flag}"
    for words in (2, 1):
        if (name := " ".join(arguments[:words])) in MODULES:
            return name
    group = [name for name in MODULES if name.split()[0] == arguments[0]]
    near = group or difflib.get_close_matches(arguments[0], MODULES, n=3)
    which = f"try {' or '.join(near)}" if near else f"there are {', '.join(MODULES)}"
    raise ValueError(f"found no command {' '.join(arguments[: 2 if group else 1])!r}; {which}")


def help_text() -> str:
    """The commands by group, one line each."""
    width = max(map(len, MODULES))
    lines = ["usage: framelens COMMAND [options]", "", QUESTION]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:", *(f"  {name:{width}}  {about}" for name, (_, about) in commands.items())]
    return "\n".join([*lines, "", "framelens COMMAND --help lists the options of a command."])


if __name__ == "__main__":
    sys.exit(main())
