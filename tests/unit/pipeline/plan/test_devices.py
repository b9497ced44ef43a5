import pytest

from tutelage.errors import ConfigError
from tutelage.pipeline.plan.devices import (
    NAMED,
    REACHED,
    Rates,
    available_memory,
    measured_rates,
    named_device,
    seconds,
)
from tutelage.pipeline.plan.parts import Work

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
    assert seconds((Work(200.0, 5.0),), rates) == pytest.approx(2.0 / REACHED)
    assert seconds((Work(200.0, 50.0),), rates) == pytest.approx(5.0 / REACHED)
    assert seconds((Work(200.0, 0.0, "bfloat16"),), rates) == pytest.approx(0.5 / REACHED)
    both = (Work(200.0, 5.0), Work(0.0, 10.0))
    assert seconds(both, rates) == pytest.approx(3.0 / REACHED)
    # Half of the threads multiply half as fast, and share the memory.
    assert seconds((Work(200.0, 5.0),), rates, share=0.5) == pytest.approx(4.0 / REACHED)


def test_measuring_rates_is_short_and_gives_sensible_ones():
    rates = measured_rates("cpu", budget=0.05)
    assert 1e8 < rates.float32 < 1e14
    assert 1e8 < rates.bfloat16 < 1e15
    assert 1e7 < rates.bandwidth < 1e13
