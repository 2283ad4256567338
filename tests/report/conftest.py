import base64
import json
import math
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from recsparse.report.choice import equal_bytes_rival
from recsparse.report.results import (
    Claim,
    Comparison,
    Cost,
    Dataset,
    FewShotPoint,
    Latency,
    Measured,
    Results,
    Row,
    SplitInfo,
    WarmUpPoint,
)

ITEMS = 1682


def measured(mean, half=0.016, users=300):
    return Measured(mean=mean, low=mean - half, high=mean + half, users=users)


def table(label, family, size, quality):
    """A row with a table: ``kept`` values of ``bits`` an item, a bitmap where some are dropped, scales if quantised."""
    dim, kept, bits = size
    values = math.ceil(ITEMS * kept * bits / 8)
    breakdown = {"values": values}
    if family == "element":
        breakdown["bitmap"] = ITEMS * dim // 8
    if family == "row":
        breakdown["remap"] = 320
    if bits < 16:
        breakdown["scales"] = 2 * ITEMS
    total = sum(breakdown.values())
    value_type = {32: "fp32", 16: "fp16", 8: "int8", 4: "int4"}[bits]
    figures = {
        "ndcg@10": measured(quality * 0.92),
        "ndcg@20": measured(quality),
        "ndcg@100": measured(quality * 1.19),
        "recall@20": measured(quality * 1.06),
        "recall@50": measured(quality * 1.38),
    }
    lengths = (0, 1, 2, 3, 5, 10)
    return Row(
        label=label, family=family, model="iALS", params={"alpha": 0.3}, value_type=value_type, dim=dim,
        density=kept / dim, bytes_total=total, bytes_per_item=total / ITEMS, breakdown=breakdown, metrics=figures,
        validation={"ndcg@20": measured(quality * 1.01, users=100)},
        few_shot=[
            FewShotPoint(history=k, metrics={"ndcg@20": measured(quality + (0.17 - quality) * math.exp(-k / 4), 0.012)})
            for k in lengths
        ],
        item_groups={"head": {"ndcg@20": measured(quality)}, "torso": {"ndcg@20": measured(quality * 0.6)},
                     "tail": {"ndcg@20": measured(quality * 0.1, 0.01)}},
        user_groups={"light": {"ndcg@20": measured(quality * 0.8)}, "heavy": {"ndcg@20": measured(quality * 1.1)}},
        cold_items={"ndcg@20": measured(quality * 0.05, 0.004)},
        warm_up=[WarmUpPoint(gathered=n, metrics={"ndcg@20": measured(quality * n / (n + 4))}) for n in (0, 1, 5, 20)]
        if (family, bits) == ("element", 4) else [],
        pruned_items={"zero": {"ndcg@20": measured(0.01)}, "mean": {"ndcg@20": measured(0.02)}}
        if family == "row" else {},
        beyond={"coverage@20": 0.4, "gini@20": 0.8},
        cost=Cost(fit_seconds=0.4, convert_seconds=0.002, lookup=Latency(p50_ms=0.02, p99_ms=0.05, batch=64)),
    )  # fmt: skip


@pytest.fixture(scope="session")
def results():
    """A run as the demo makes it, with figures in the usual relation to each other."""
    rows = [
        Row(label="popularity", family="popularity", model="Popularity", metrics={
            metric: measured(value) for metric, value in
            {"ndcg@10": 0.19, "ndcg@20": 0.2, "ndcg@100": 0.27, "recall@20": 0.21, "recall@50": 0.3}.items()},
            few_shot=[FewShotPoint(history=k, metrics={"ndcg@20": measured(0.2)}) for k in (0, 1, 2, 3, 5, 10)]),
        Row(label="EASE", family="item-item", model="EASE", metrics={
            metric: measured(value) for metric, value in
            {"ndcg@10": 0.39, "ndcg@20": 0.411, "ndcg@100": 0.49, "recall@20": 0.43, "recall@50": 0.55}.items()},
            few_shot=[FewShotPoint(history=k, metrics={"ndcg@20": measured(0.411 - 0.2 * math.exp(-k / 4))})
                      for k in (1, 2, 3, 5, 10)]),
    ]  # fmt: skip
    dense = {8: 0.345, 16: 0.372, 32: 0.391, 64: 0.404, 128: 0.406}
    loss = {32: 0.0, 16: 0.0, 8: 0.001, 4: 0.02}
    for dim, quality in dense.items():
        for bits in (32, 16, 8, 4):
            family = "dense" if bits == 32 else "quantised"
            name = f"dense d{dim}" + ("" if bits == 32 else {16: " fp16", 8: " int8", 4: " int4"}[bits])
            rows.append(table(name, family, (dim, dim, bits), quality - loss[bits]))
    for kept, quality in {4: 0.381, 6: 0.39, 8: 0.395, 12: 0.401, 16: 0.404, 32: 0.407}.items():
        rows.extend(
            table(f"sparse d128, {kept} kept, {name}", "element", (128, kept, bits), quality - loss[bits] / 2)
            for bits, name in ((32, "fp32"), (8, "int8"), (4, "int4"))
        )
    for share, quality in {0.5: 0.385, 0.25: 0.331}.items():
        rows.append(table(f"rows {share:.0%} of d64", "row", (64, 64 * share, 32), quality))
    reference = next(row for row in rows if row.label == "dense d128")
    rng = np.random.default_rng(0)
    comparisons = []
    for row in rows:
        rival = equal_bytes_rival(rows, row, "ndcg@20") if row.family == "element" else None
        for other, why in ((reference, "best dense table"), (rival, "dense at equal bytes")):
            if other is None or not row.bytes_total or row is other:
                continue
            gap = row.metrics["ndcg@20"].mean - other.metrics["ndcg@20"].mean
            half = 0.004 + 0.002 * rng.random()
            comparisons.append(
                Comparison(a=row.label, b=other.label, metric="ndcg@20", users=300, mean_a=row.metrics["ndcg@20"].mean,
                           mean_b=other.metrics["ndcg@20"].mean, difference=gap, low=gap - half, high=gap + half,
                           p_t=0.01, p_holm=0.08, why=why)
            )  # fmt: skip
    return Results(
        run="demo", created="2026-11-24T12:00:00Z", command="recsparse run pipelines/ml-100k.toml",
        versions={"recsparse": "0.1.0", "numpy": "2.4.6"}, machine="2 cores, x86-64", seconds=61.0,
        dataset=Dataset(name="ml-100k", title="MovieLens 100K", citation="Harper and Konstan, 2015",
                        licence="Research use", users=943, items=ITEMS, interactions=100_000),
        split=SplitInfo(protocol="strong generalisation", train_users=543, validation_users=100, test_users=300, seed=0,
                        description="Test users are unseen; of their ratings 80 % are known, 20 % the target."),
        rows=rows, comparisons=comparisons,
        claims=[
            Claim(name="Storage", claim="Sparse tables take fewer bytes.", experiment="Bytes of the packed files.",
                  verdict="holds", evidence="9.6 times smaller at 2 % loss."),
            Claim(name="Robustness", claim="Sparse tables withstand noise.", verdict="undecided",
                  experiment="5 to 40 % random interactions added in training, 3 seeds.",
                  evidence="Loses 3.1 % at 20 % noise, dense 3.0 %; the interval of the difference spans zero."),
            Claim(name="Diversity", claim="Lists become more diverse.", verdict="does not hold",
                  experiment="Coverage of the top 20.", evidence="Coverage falls from 0.41 to 0.38."),
        ],
        files={"results.json": "every figure", "audit/": "histories, targets and recommendations"},
    )  # fmt: skip


FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip


class Browser:
    """Headless Chromium over the WebDriver protocol, with nothing but the standard library."""

    def __enter__(self):
        self._profile = tempfile.mkdtemp(prefix="recsparse-chromium-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._url = f"http://127.0.0.1:{port}"
        self._wait_until_ready()
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={self._profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/session/{session['sessionId']}"
        return self

    def __exit__(self, *_):
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(timeout=10)
            shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, path):
        """Open a report, and wait until its charts are drawn: Plotly goes on after the page has loaded."""
        self._call("POST", "/url", {"url": Path(path).resolve().as_uri()})
        picture = """
            const charts = [...document.querySelectorAll('.chart')];
            const drawn = charts.every((chart) => chart.querySelector('.main-svg'));
            return drawn && charts.map((chart) => chart.innerHTML).join();
        """
        before = None
        for _ in range(300):
            now = self.run(picture)
            if now and now == before:
                return
            before = now
            time.sleep(0.1)
        raise RuntimeError(f"the charts of {path} were not drawn within 30 seconds")

    def run(self, script, *arguments):
        """The value a JavaScript function body returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command, **parameters):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width, height, *, phone=False):
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    def prefer(self, scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def console(self):
        """What the page logged, errors and warnings included."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def requests(self):
        """The addresses the page asked for."""
        entries = [
            json.loads(entry["message"])["message"] for entry in self._call("POST", "/se/log", {"type": "performance"})
        ]
        return [one["params"]["request"]["url"] for one in entries if one["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path, *, whole=False):
        data = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(base64.b64decode(data))

    def _wait_until_ready(self):
        for _ in range(100):
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except urllib.error.URLError:
                time.sleep(0.1)
        raise RuntimeError("chromedriver did not start")

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from error


@pytest.fixture(scope="session")
def browser():
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if lacking:
        pytest.skip(f"{' and '.join(lacking)} not installed")
    with Browser() as browser:
        yield browser
