"""What reaches the terminal: plain text, in any encoding, also where there is no room for it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dff.cli import main
from dff.cli.console import clean, print_json
from dff.concepts import ConceptBank
from tests.test_cli import FACTORY
from tests.test_cli_outputs import ROOT, photo

EVIL = [
    "[/]",
    "[red]x",
    "\x1b[31mred\x07",
    "c1\x9b2J",
    "\u202eesrever",
    "line\u2028break",
    "tab\tx",
]
FORBIDDEN = [*map(chr, range(9)), *map(chr, range(11, 32)), *map(chr, range(127, 160)), "\u202e"]

STEERING = (
    FACTORY
    + """
def loud():
    import sys, warnings, time
    warnings.warn("a layer is\\nodd \\x1b[31m")
    return build()

def interrupted():
    net = build()
    net[0].register_forward_hook(sleep)
    return net

def sleep(*_):
    import time
    print("running", flush=True)
    time.sleep(60)
"""
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(STEERING)
    (tmp_path / "labels.txt").write_text("\n".join(EVIL[:4]), newline="\n")
    (tmp_path / "bidi.txt").write_text("a\nb\nc\n\u202eesrever", encoding="utf-8")
    photo(tmp_path / "a.png")
    photo(tmp_path / "\u202egnp.[\x1b].png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MODEL = ("--model", "net.py:build", "--size", "32", "-k", "2")


def dff(here: Path, *words: str, shell: str = "", **env: str) -> subprocess.CompletedProcess:
    command: object = [sys.executable, "-m", "dff", *words]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]  # type: ignore[misc]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(command, cwd=here, env=env, capture_output=True, timeout=600)


def run(*words: str, encoding: str = "utf-8") -> tuple[int, str, str]:
    """Run a command here, its outputs in an encoding; return its status and what it wrote."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", streams[0])
        patched.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as ended:
            main(list(words))
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
    return int(ended.value.code or 0), out, err


def plain(*texts: bytes) -> bool:
    return not any(letter in text.decode() for text in texts for letter in FORBIDDEN)


def test_clean():
    assert clean("a\x1b[31m\x9b\u202e\ud800\n") == "a\\x1b[31m\\x9b\\u202e\\ud800\\n"
    assert clean("ü ■ 日本 👩‍🔬") == "ü ■ 日本 👩‍🔬"


ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-16", "utf-8"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_encoding_will_do(here, encoding):
    assert run("analyze", "a.png", *MODEL, encoding=encoding)[::2] == (0, "")
    status, _, errors = run("analyze", "ä.png", *MODEL, encoding=encoding)
    assert status == 1
    assert "there is no image" in errors
    photo(here / "ä.png")
    status, shown, errors = run("analyze", "ä.png", *MODEL, encoding=encoding)
    assert (status, errors) == (0, "")
    assert "Concept 1" in shown
    _, shown, _ = run("analyze", "ä.png", *MODEL, "--json", encoding=encoding)
    assert json.loads(shown)["images"][0]["image"] == "ä"


@pytest.mark.parametrize("labels", ["labels.txt", "bidi.txt"])
def test_names_do_not_steer_the_terminal(here, labels, capfd):
    photos = [path.name for path in here.glob("*.png")]
    words = ("analyze", *photos, *MODEL, "--labels", labels, "--check", "--evidence", "blur")
    for more in ((), ("--json",), ("--shared", "--target", "3")):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        out, err = capfd.readouterr()
        assert (ended.value.code, err) == (0, "")
        assert plain(out.encode())
    assert ("\\x9b" if labels == "labels.txt" else "\\u202e") in out


def test_names_of_concepts_do_neither(here, capfd):
    with pytest.raises(SystemExit):
        main(["analyze", "a.png", *MODEL])
    bank = ConceptBank.load("dff-out/bank.safetensors").renamed({0: "[/]\x1b", 1: "\u202e"})
    bank.save("bank")
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["analyze", "a.png", *MODEL[:-2], "--bank", "bank"])
    out, err = capfd.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert "[/]\\x1b" in out
    assert plain(out.encode())


@pytest.mark.parametrize(
    "words",
    [
        ("\x1b[31m",), ("analyze", "--\x1b[31m"), ("models", "a", "\x1b\x9b"),
        ("analyze", "no\x1b[31m.png"), ("analyze", "a.png", "--size", "\x1b"),
        ("analyze", "a.png", "-k", "\x1b"), ("analyze", "a.png", "-o", "a.png/\x1b"),
        ("analyze", "a.png", "--model", "\x1b"), ("analyze", "a.png", "--model", "\x1b:a"),
        ("analyze", "a.png", "--labels", "\x1b"), ("analyze", "a.png", "--format", "\x1b"),
        ("analyze", "a.png", "--bank", "\x1b"), ("layers", "-m", "\x1b"), ("sweep", "\x1b"),
        ("colocalize", "\x1b", "-o", "x"), ("find", "\x1b", "-c", "1"), ("name", "\x1b", "a", "b"),
        ("evaluate", "\x1b", "--annotations", "x"), ("analyze", "\u202e"),
    ],
)  # fmt: skip
def test_errors_do_neither(here, words, capfd):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capfd.readouterr()
    assert ended.value.code in (1, 2)
    assert out == ""
    assert plain(err.encode())
    assert len(err.splitlines()) == 1
    assert err.startswith("dff: ")
    assert "dff: unexpected" not in err


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_json_has_no_nan(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"ü": [float("nan"), 0.5]})
    text = stream.buffer.getvalue().decode(encoding)
    assert json.loads(text) == {"ü": [None, 0.5]}
    assert text.endswith("}\n")


def test_wrong_usage_says_where_help_is(here, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["analyze", "a.png", "--sise", "3"])
    assert ended.value.code == 2
    err = capfd.readouterr().err
    assert "--sise" in err
    assert "--size" in err
    assert err.endswith("(see dff analyze --help)\n")


FULL = (
    "dff: cannot print: No space left on device\n",
    "dff: cannot write: No space left on device\n",  # of --help
)


@pytest.mark.parametrize(
    "words", [("--help",), ("models",), ("models", "--json"), ("analyze", "a.png", *MODEL),
              ("analyze", "a.png", *MODEL, "--json")]
)  # fmt: skip
def test_an_output_that_is_full(here, words, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            main(list(words))
    assert ended.value.code == 1
    assert capfd.readouterr().err in FULL


def test_an_output_that_is_full_to_the_end_of_the_process(here):
    done = dff(here, "--version", shell="> /dev/full")
    assert (done.returncode, done.stderr.decode()) == (1, FULL[1])


@pytest.mark.parametrize("closed", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_outputs_that_are_closed(here, closed, monkeypatch):
    for stream in closed:
        monkeypatch.setattr(sys, stream, None)
    for image, status in (("a.png", 0), ("b.png", 1)):
        with pytest.raises(SystemExit) as ended:
            main(["analyze", image, *MODEL])
        assert ended.value.code == status


def test_outputs_whose_files_are_closed(here):
    assert dff(here, "analyze", "a.png", *MODEL, shell=">&- 2>&-").returncode == 0


def test_errors_that_cannot_be_written(here):
    assert dff(here, "--wrong", shell="2> /dev/full").returncode == 2


def test_json_stays_json_whatever_warnings_come(here):
    words = ("analyze", "a.png", *MODEL, "--model", "net.py:loud", "--json")
    done = dff(here, *words, PYTHONIOENCODING="utf-16")  # the encoding is the environment's
    assert done.returncode == 0
    assert json.loads(done.stdout.decode("utf-16"))["concepts"]
    warning = "dff: warning: a layer is odd \\x1b[31m\n"
    assert done.stderr.decode("utf-16") == warning


def test_names_that_are_not_unicode(here):
    name = os.fsdecode(b"bad\xff.png")
    photo(here / name)
    for more in ((), ("--json",)):
        status, shown, errors = run("analyze", name, *MODEL, *more)
        assert (status, errors) == (0, "")
    assert json.loads(shown)["images"][0]["files"]


def test_an_interrupt_in_the_middle(here):
    process = subprocess.Popen(
        [sys.executable, "-m", "dff", "analyze", "a.png", "--model", "net.py:interrupted",
         "--size", "32", "--layer", "0"],
        cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert (process.returncode, errors) == (130, "dff: interrupted\n")
    assert not (here / "dff-out").exists()


def test_an_interrupt_while_writing_leaves_nothing_half_written(here, monkeypatch, capfd):
    real, calls = os.fsync, []

    def fsync(number: int) -> None:
        calls.append(number)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SystemExit) as ended:
        main(["analyze", "a.png", *MODEL])
    assert ended.value.code == 130
    assert [path.name for path in (here / "dff-out").iterdir()] == [".dff-manifest.jsonl"]
    assert capfd.readouterr().err == "dff: interrupted\n"


def test_too_little_memory_is_said(here, monkeypatch, capfd):
    def full(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dff.models.load_model", full)
    with pytest.raises(SystemExit) as ended:
        main(["analyze", "a.png", *MODEL])
    assert ended.value.code == 1
    assert "not enough memory" in capfd.readouterr().err
