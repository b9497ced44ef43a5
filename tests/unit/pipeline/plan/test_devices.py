import pytest

from tutelage.config import ModelShape
from tutelage.errors import ConfigError
from tutelage.pipeline.plan.calibration import measured_pace
from tutelage.pipeline.plan.devices import (
    NAMED,
    PACE,
    REACHED,
    Pace,
    Rates,
    available_memory,
    measured_rates,
    named_device,
    seconds,
)
from tutelage.pipeline.plan.parts import Work
from tutelage.pipeline.plan.sizes import size_of_shape

GB = 10**9


@pytest.fixture
def machine(tmp_path):
    """Files as the kernel shows them; `machine(free, "0::/a", {"sys/fs/cgroup/a/x": "1"})`."""

    def build(free_kb, membership="", files=()):
        texts = {
            "proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {free_kb} kB\n",
            "proc/self/cgroup": membership,
            **dict(files),
        }
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return build


def limited(folder: str, most: str, used: int, files: int) -> dict[str, str]:
    return {
        f"{folder}/memory.max": f"{most}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 1\ninactive_file {files}\n",
    }


def test_memory_is_what_the_machine_has_left(machine):
    assert available_memory(machine(5000)) == 5000 * 1024


def test_control_group_allows_less(machine):
    files = limited("sys/fs/cgroup/a", "1000000", 400_000, 100_000)
    # Files that were read lately can be forgotten: 1,000,000 - 400,000 + 100,000.
    assert available_memory(machine(5000, "0::/a\n", files)) == 700_000


def test_outer_control_group_counts_too(machine):
    files = {
        **limited("sys/fs/cgroup/a/b", "max", 0, 0),
        **limited("sys/fs/cgroup/a", "500000", 0, 0),
    }
    assert available_memory(machine(5000, "0::/a/b\n", files)) == 500_000


def test_first_version_of_control_groups_is_read(machine):
    folder = "sys/fs/cgroup/memory/a"
    files = {
        f"{folder}/memory.limit_in_bytes": "300000\n",
        f"{folder}/memory.usage_in_bytes": "100000\n",
        f"{folder}/memory.stat": "cache 1\n",
    }
    assert available_memory(machine(5000, "4:cpu,memory:/a\n2:freezer:/\n", files)) == 200_000


def test_exhausted_control_group_leaves_nothing(machine):
    files = limited("sys/fs/cgroup/a", "100", 400, 0)
    assert available_memory(machine(5000, "0::/a\n", files)) == 0


def test_this_machine_has_memory():
    assert available_memory() > 1 << 20


def test_named_device_is_that_of_its_data_sheet():
    device = named_device("H100")
    assert device.memory == 80 * GB
    assert device.rates == Rates(67e12, 989e12, 3350e9)
    assert {"h200", "h100", "a100-80gb", "rtx4090", "l4"} <= NAMED.keys()


def test_unknown_device_is_told_the_nearest():
    with pytest.raises(ConfigError, match=r"--device h20: not known. Did you mean 'h200'\?"):
        named_device("h20")


def test_time_is_that_of_products_or_bytes_whichever_is_longer():
    rates = Rates(float32=100.0, bfloat16=400.0, bandwidth=10.0)
    second = REACHED * seconds((Work(100.0),), rates)
    assert second > 1.0  # Not all of the time goes into passes.

    def took(*work, **options):
        return seconds(work, rates, **options) / second

    assert took(Work(200.0, 5.0)) == pytest.approx(2.0 / REACHED)
    assert took(Work(200.0, 50.0)) == pytest.approx(5.0 / REACHED)
    assert took(Work(200.0, 0.0, "bfloat16")) == pytest.approx(0.5 / REACHED)
    assert took(Work(200.0, 5.0), Work(0.0, 10.0)) == pytest.approx(3.0 / REACHED)
    # Half of the threads multiply half as fast, and share the memory.
    assert took(Work(200.0, 5.0), share=0.5) == pytest.approx(4.0 / REACHED)


def test_narrow_models_take_longer():
    rates, pace = Rates(100.0, 100.0, 10.0), Pace(reached=0.25, step=0.5)
    large = seconds((Work(100.0),), rates)
    assert seconds((Work(100.0),), rates, pace=pace) == pytest.approx(large * REACHED / 0.25)
    # Eight blocks, four of them on each of two cores: 4 x 0.5 s.
    steps = seconds((Work(0.0, steps=8.0),), rates, pace=pace, cores=2)
    assert steps == pytest.approx(2.0 * REACHED * large)


def test_pace_of_a_narrow_model_is_measured():
    shape = ModelShape(hidden_size=32, layers=3, heads=2, mlp_size=64, vocabulary=128)
    pace = measured_pace(size_of_shape("x", shape), "cpu", measured_rates("cpu"), budget=0.02)
    assert 0.0 < pace.reached < 1.0
    assert 0.0 < pace.step < 0.1


def test_pace_of_a_wide_model_is_that_of_large_ones():
    shape = ModelShape(hidden_size=4096, layers=3, heads=32, mlp_size=8192, vocabulary=128)
    rates = Rates(1e11, 1e11, 1e10)
    assert measured_pace(size_of_shape("x", shape), "cpu", rates) == PACE["cpu"]


@pytest.mark.parametrize(
    ("name", "units", "float32", "bfloat16", "clocks", "bus", "pins"),
    [
        # Multiprocessors, multiply-adds of each per clock, boost clocks in GHz for both formats,
        # width of the memory bus in bits, Gbit/s of a pin: from the vendor's white papers.
        ("h100", 132, 128, 2048, (1.98, 1.83), 5120, 5.234),
        ("a100-80gb", 108, 64, 1024, (1.41, 1.41), 5120, 3.186),
        ("a100-40gb", 108, 64, 1024, (1.41, 1.41), 5120, 2.43),
        ("l40s", 142, 128, 512, (2.52, 2.49), 384, 18.0),
        ("a10", 72, 128, 512, (1.695, 1.695), 384, 12.5),
        ("l4", 58, 128, 512, (2.04, 2.04), 192, 12.5),
        ("rtx4090", 128, 128, 256, (2.52, 2.52), 384, 21.0),
        ("rtx3090", 82, 128, 256, (1.695, 1.695), 384, 19.5),
    ],
)
def test_rates_of_named_devices_follow_from_their_units_and_clocks(
    name, units, float32, bfloat16, clocks, bus, pins
):
    rates = named_device(name).rates
    # The vendor rounds to three digits, and its clocks to two.
    assert rates.float32 == pytest.approx(2e9 * units * float32 * clocks[0], rel=0.01)
    assert rates.bfloat16 == pytest.approx(2e9 * units * bfloat16 * clocks[1], rel=0.01)
    assert rates.bandwidth == pytest.approx(1e9 * bus * pins / 8, rel=0.01)


def test_measuring_rates_is_short_and_gives_sensible_ones():
    rates = measured_rates("cpu", budget=0.05)
    assert 1e8 < rates.float32 < 1e14
    assert 1e8 < rates.bfloat16 < 1e15
    assert 1e7 < rates.bandwidth < 1e13
