"""Passes leave a model as it was: in threads, at any moment of a signal, in any mode."""

import contextlib
import gc
import signal
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

import dff
from dff.activations import STOP, Appended, intercept
from dff.activations.borrowing import plainly
from dff.activations.failures import model_errors
from dff.activations.interrupts import SIGNALS, bracketed
from dff.errors import LayerError, ModelError, OutOfMemoryError
from gradcam import GradCAM
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched


@pytest.fixture(autouse=True)
def ctrl_c():
    """Raise KeyboardInterrupt, also where the tests run in the background and ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def in_threads(*jobs):
    """Run the jobs at once; return what each returned, and raise what one raised."""
    results, errors = [None] * len(jobs), []
    barrier = threading.Barrier(len(jobs))

    def run(index):
        barrier.wait()
        try:
            results[index] = jobs[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.fixture
def eager_switching():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_passes_on_one_model_in_several_threads():
    model = seeded(ConvNet).train()
    model.stem.eval()
    xs = [images(1, 3, 16, 16, seed=i) for i in range(3)]
    expected = [intercept(model, "layer4", lambda maps: None, x) for x in xs]

    def job(x):
        return [intercept(model, "layer4", lambda maps: None, x) for _ in range(60)]

    with untouched(model):
        found = in_threads(*(lambda x=x: job(x) for x in xs))
    for each, right in zip(found, expected, strict=True):
        assert all(torch.equal(one, right) for one in each)


@pytest.mark.usefixtures("eager_switching")
def test_explainers_grad_cam_and_the_users_own_forward_at_once():
    model, x = seeded(ConvNet), images(1, 3, 32, 32)
    explainers = [dff.Explainer(model, layer="layer4") for _ in range(2)]
    cam = GradCAM(model, "layer4")
    plain, map_ = model(x).detach(), cam(x, 1)
    bank = explainers[0](x, concepts=2).bank

    def explain(explainer):
        return [explainer(x, concepts=2).bank.components for _ in range(5)]

    with untouched(model):
        one, other, maps, own = in_threads(
            lambda: explain(explainers[0]),
            lambda: explain(explainers[1]),
            lambda: [cam(x, 1) for _ in range(20)],
            lambda: [model(x).detach() for _ in range(60)],
        )
    assert all(torch.equal(each, bank.components) for each in one + other)
    assert all(np.array_equal(each, map_) for each in maps)
    assert all(torch.equal(each, plain) for each in own)


def test_a_forward_of_another_thread_is_left_alone():
    model, x = seeded(ConvNet), images(1, 3, 16, 16)
    plain, foreign = model(x).detach(), []

    def fn(maps):
        foreign.extend(in_threads(lambda: model(x).detach()))
        return maps * 0

    logits = intercept(model, "layer4", fn, x)
    assert torch.equal(foreign[0], plain)
    assert not torch.allclose(logits, plain)


def test_a_function_may_run_the_model_itself():
    model, x = seeded(ConvNet), images(1, 3, 16, 16)
    plain, inner = model(x).detach(), []

    def fn(maps):
        inner.append(model(x).detach())
        inner.append(intercept(model, "layer4", lambda maps: None, x))
        return Appended(maps)

    with untouched(model):
        assert len(intercept(model, "layer4", fn, x)) == 2
    assert all(torch.equal(each, plain) for each in inner)


def test_evaluation_mode_lasts_until_the_last_pass_ends():
    model, x = seeded(ConvNet).train(), images(1, 3, 16, 16)
    first_in, second_done = threading.Event(), threading.Event()

    def waiting(maps):
        first_in.set()
        assert second_done.wait(10)
        assert not model.training
        assert not model.dropout.training

    def second():
        assert first_in.wait(10)
        intercept(model, "stem", lambda maps: STOP, x)
        second_done.set()

    with untouched(model):
        in_threads(lambda: intercept(model, "layer4", waiting, x), second)


def test_compiled_models_in_threads_get_their_stance_back():
    from torch._dynamo import eval_frame

    model, x = seeded(PixelNet), images(1, 3, 8, 8)
    model.compile(backend="eager")
    first_in, second_in, first_done = (threading.Event() for _ in range(3))

    def first(maps):
        first_in.set()
        assert second_in.wait(10)

    def second(maps):
        second_in.set()
        assert first_done.wait(10)
        assert eval_frame._stance.stance == "force_eager"

    def run_first():
        intercept(model, "body", first, x)
        first_done.set()

    def run_second():
        assert first_in.wait(10)
        intercept(model, "body", second, x)

    in_threads(run_first, run_second)
    assert eval_frame._stance.stance == "default"


def interrupted_at_each_moment(work, check, *, step=1):
    """Send SIGINT at the first, second, ... traced moment of `work`, as often as it has moments.

    A moment is an instruction of this package's own files, and a line of any other. `check` is
    called after each; the number of interrupts that ended the work is returned.
    """
    moment = interrupts = 0
    while True:
        count, ended = 0, False

        def trace(frame, event, _arg, stop=moment):
            nonlocal count
            own = "/dff/" in frame.f_code.co_filename or "/gradcam/" in frame.f_code.co_filename
            if event == "call":
                frame.f_trace_opcodes = own
            if event == "opcode" or not own:
                count += 1
                if count > stop:
                    count = -(10**9)
                    signal.raise_signal(signal.SIGINT)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            work()
            ended = count >= 0
        except KeyboardInterrupt:
            interrupts += 1
        finally:
            sys.settrace(before)
        check()
        if ended:
            return interrupts
        moment += step


def _state(model):
    return (
        [(m.training, len(m._forward_hooks)) for m in model.modules()],
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        [signal.getsignal(number) for number in SIGNALS],
    )


@pytest.mark.parametrize(("grad", "step"), [(False, 1), (True, 3)])
def test_an_interrupt_at_any_moment_leaves_nothing_behind(grad, step):
    model, x = seeded(PixelNet).train(), images(1, 3, 8, 8)
    before = _state(model)

    def check():
        assert _state(model) == before

    def work():
        intercept(model, "body", lambda maps: None, x, grad=grad)

    assert interrupted_at_each_moment(work, check, step=step) > 300 / step


@pytest.mark.parametrize(("mode", "step"), [(torch.no_grad, 13), (torch.inference_mode, 11)])
def test_an_interrupted_grad_cam_leaves_nothing_behind(mode, step):
    model, x = seeded(PixelNet).train(), images(1, 3, 8, 8)
    cam = GradCAM(model, "body")
    with mode():
        before = _state(model)

        def check():
            assert _state(model) == before

        assert interrupted_at_each_moment(lambda: cam(x, 0), check, step=step) > 50


def test_an_interrupted_explainer_leaves_nothing_behind():
    model, x = seeded(PixelNet).train(), images(1, 3, 8, 8)
    explainer = dff.Explainer(model, layer="body")
    before = _state(model)

    def check():
        assert _state(model) == before

    assert interrupted_at_each_moment(lambda: explainer(x, concepts=2), check, step=211) > 30


def test_signals_wait_for_set_up_and_clean_up():
    heard, done = [], []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(list(done)))
    try:

        def step(name):
            signal.raise_signal(signal.SIGTERM)
            done.append(name)

        bracketed(lambda: step("up"), lambda: step("work"), lambda: step("down"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [["up"], ["up"], ["up", "work", "down"]] or heard == [
        ["up"], ["up", "work", "down"], ["up", "work", "down"]
    ]  # fmt: skip


def test_a_handler_set_by_the_work_stays():
    def handler(number, frame):
        return None

    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        bracketed(lambda: None, lambda: signal.signal(signal.SIGTERM, handler), lambda: None)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("kind", [ConvNet, TokenNet])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_grad_cam_in_modes_without_gradients(kind, mode):
    model, layer = seeded(kind), "layer4" if kind is ConvNet else "blocks.1"
    cam = GradCAM(model, layer)
    expected = cam(images(1, 3, 32, 32), 1)
    with mode():
        assert np.array_equal(cam(images(1, 3, 32, 32), 1), expected)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_an_explanation_is_the_same_in_every_mode(mode):
    model, x = seeded(ConvNet), images(2, 3, 32, 32)
    plain = dff.Explainer(model, layer="layer4")(x, concepts=3)
    with mode():
        explanation = dff.Explainer(model, layer="layer4")(x, concepts=3)
        values = explanation.contributions(0).values
        cam = explanation.cam(0)
    assert torch.equal(explanation.bank.components, plain.bank.components)
    assert torch.equal(explanation.logits, plain.logits)
    torch.testing.assert_close(values, plain.contributions(0).values, atol=1e-3, rtol=1e-2)
    np.testing.assert_allclose(cam, plain.cam(0), atol=5e-3)


class _Greedy(nn.Module):
    """Fails for want of memory where more than `most` images come at once."""

    def __init__(self, most, error):
        super().__init__()
        self.net, self.most, self.error = seeded(ConvNet), most, error

    def forward(self, x):
        if len(x) > self.most:
            raise self.error
        return self.net(x)


CPU_ALLOCATOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 411041792000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), CPU_ALLOCATOR]
)
def test_out_of_memory_halves_the_batch_and_does_not_squash(error):
    model = _Greedy(99, error)
    explainer = dff.Explainer(model, layer="net.layer4")
    photos = [np.zeros((40, 80, 3), np.uint8) + 20 * i for i in range(1, 6)]
    whole = explainer(photos, concepts=2)
    model.most = 2
    with pytest.warns(RuntimeWarning, match="memory ran out on 5 photos at once: going on with 2"):
        parts = explainer(photos, concepts=2)
    torch.testing.assert_close(parts.logits, whole.logits)
    model.most = 0
    with pytest.raises(OutOfMemoryError, match=r"memory ran out in the model on an input of shape"):
        explainer(photos[:1], concepts=2)
    assert not explainer.preprocessing.fixed


def test_memory_that_runs_out_for_real():
    with pytest.raises(OutOfMemoryError), model_errors(nn.Identity(), images(1, 3, 2, 2)):
        torch.empty(2**60, dtype=torch.uint8)


def test_photos_are_not_squashed_for_good_where_that_does_not_help():
    model = seeded(ConvNet)
    explainer = dff.Explainer(model, layer="layer4")
    photo = np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)
    model.fc = nn.Linear(7, 5)
    with pytest.raises(ModelError, match="the model failed"):
        explainer(photo, concepts=2)
    assert not explainer.preprocessing.fixed


def test_a_batch_of_a_data_set_is_halved():
    from dff.colocalization.stages.network import Network

    model = _Greedy(99, CPU_ALLOCATOR)
    explainer = dff.Explainer(model, layer="net.layer4")
    network = Network(explainer)
    size = network.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 255, (5, size, size, 3), np.uint8)
    whole = network(pixels)
    network.model.most = 2
    with pytest.warns(RuntimeWarning, match="memory ran out on 5 images at once: going on with 2"):
        parts = network(pixels)
    torch.testing.assert_close(parts.rows, whole.rows)
    torch.testing.assert_close(parts.logits, whole.logits)
    assert network(pixels, predict=False).logits is None


def test_thousands_of_failing_passes_leave_memory_flat():
    model, x = seeded(PixelNet), images(1, 3, 4, 4)

    def fail(maps):
        raise ValueError("on the way")

    def pass_(index):
        kinds = [("body", fail), ("fc", lambda m: None), ("none", fail), ("body", lambda m: STOP)]
        layer, fn = kinds[index % 4]
        given = x if index % 5 else x[:, :2]
        with contextlib.suppress(LayerError, ValueError, RuntimeError):
            plainly(lambda: intercept(model, layer, fn, given, grad=bool(index % 2)))

    for index in range(200):
        pass_(index)
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    try:
        for index in range(1000):
            pass_(index)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 16_000  # a pass: no more than the smallest object
    assert len(gc.get_objects()) - objects < 100
