# Licensed under a 3-clause BSD style license - see LICENSE
"""
What ``jaisp catalog`` costs beside a plain script on the same files: time, peak memory, and their ratio.

All run as commands of their own, in turns, so that what else the machine does hits them alike. Rubin's image
is larger than Euclid's, to cover it turned. The plain script measures on Euclid's alone, and so does
``jaisp catalog --region euclid``; by default it covers both. Also times ``import jaisp``. Linux
and macOS only. Example::

    python benchmarks/pipeline.py --folder skies --output results
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from astropy.table import QTable

import jaisp
from jaisp.evaluation import markdown_table
from jaisp.simulation import simulate

# ru_maxrss is in KiB on Linux and in bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


# A child's peak begins at its parent's size, so the command is started by a small process of its own.
_STARTER = """
import json, os, sys, time
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - start
record = [os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
json.dump(record, sys.stderr)
"""


def measure(command, log):
    """Wall time (s), processor time (s) and peak memory (bytes) of a command; its output goes to ``log``."""
    starter = [sys.executable, "-S", "-c", _STARTER, *(str(part) for part in command)]
    with log.open("w") as file:
        process = subprocess.run(starter, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    *words, record = process.stderr.rsplit("[", 1)
    with log.open("a") as file:
        file.writelines(words)
    status, wall, processor, memory = json.loads("[" + record)
    if status:
        raise SystemExit(f"{command[0]} failed with status {status}: {log.read_text()[-2000:]}")
    return wall, processor, memory * _RSS_UNIT


def pair_of_files(folder, size):
    """Files of a ten-band pair of this size (arcmin), drawn once."""
    place = folder / f"pipeline_{size:g}" / "field_000"
    if not (place / "truth.fits").exists():
        simulate(place.parent, n_tiles=1, seed=9_000_000, size_arcmin=size)
    return sorted(place.glob("rubin_*.fits")), sorted(place.glob("euclid_*.fits"))


def import_times(repeats):
    """Median wall time of ``import jaisp`` less that of starting Python, and whether it loaded torch."""
    code = {"bare": "pass", "jaisp": "import jaisp"}
    taken = {name: [] for name in code}
    for _ in range(repeats):
        for name, text in code.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", text], check=True)
            taken[name].append(time.perf_counter() - start)
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, jaisp; sys.exit('torch' in sys.modules)"], check=False
    )
    return np.median(taken["jaisp"]) - np.median(taken["bare"]), bool(loaded.returncode)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the pair is kept between runs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the table")
    parser.add_argument("--size", type=float, default=3.0, help="side of the pair in arcmin (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command (%(default)s)")
    parser.add_argument("--weights", help="folder of a trained model (the bundled one)")
    parser.add_argument("--no-model", action="store_true", help="run the plain script only")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    rubin, euclid = pair_of_files(args.folder, args.size)
    inputs = ["--rubin", *rubin, "--euclid", *euclid, "-o"]
    weights = ["--weights", args.weights] if args.weights else []
    plain = Path(__file__).with_name("plain_script.py")
    catalog = [sys.executable, "-m", "jaisp", "catalog", *inputs]
    commands = {
        "jaisp catalog": ("jaisp.fits", [*catalog, args.output / "jaisp.fits", *weights]),
        "jaisp catalog --region euclid": (
            "jaisp_euclid.fits",
            [*catalog, args.output / "jaisp_euclid.fits", *weights, "--region", "euclid"],
        ),
        "plain script": ("plain.fits", [sys.executable, plain, *inputs, args.output / "plain.fits"]),
    }
    if args.no_model:
        commands = {"plain script": commands["plain script"]}
    runs = {name: [] for name in commands}
    for _ in range(args.repeats):
        for name, (output, command) in commands.items():
            runs[name].append(measure(command, (args.output / output).with_suffix(".log")))
            print(f"{name}: {runs[name][-1][0]:.1f} s", flush=True)
    rows = []
    for name, taken in runs.items():
        wall, processor, memory = np.array(taken).T
        rows.append(
            {
                "command": name,
                "rows": len(QTable.read(args.output / commands[name][0])),
                "wall (s)": float(np.median(wall)),
                "least wall (s)": float(wall.min()),
                "processor (s)": float(np.median(processor)),
                "peak memory (GB)": float(memory.max() / 1e9),
            }
        )
    table = QTable(rows=rows)
    seconds, has_torch = import_times(2 * args.repeats + 1)
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    text = (
        f"# Cost, jaisp {jaisp.__version__}, a {args.size:g}' x {args.size:g}' pair in ten bands\n\n"
        f"{platform.machine()}, {os.cpu_count()} processors, OMP_NUM_THREADS {threads}\n\n"
        + markdown_table(table)
    )
    if not args.no_model:
        for name, wall in zip(table["command"][:-1], table["wall (s)"][:-1], strict=True):
            text += f"\n{name} / plain script: {wall / table['wall (s)'][-1]:.2f} in wall time\n"
    with_torch = "with" if has_torch else "without"
    text += f"\nimport jaisp: {seconds:.3f} s more than starting Python, {with_torch} torch\n"
    print(text)
    (args.output / "pipeline.md").write_text(text)
    table.write(args.output / "pipeline.ecsv", overwrite=True)


if __name__ == "__main__":
    main()
