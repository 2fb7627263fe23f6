"""A real Prometheus scrapes everything there is, in the format that it prefers."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from addon_support import free_port, wait_for
from metrics_support import change
from test_exposition import ODD, busy

from flowerbed.metrics.server import MetricsServer, Publisher

CONFIG = """\
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: celery
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def test_a_real_prometheus_takes_every_series(tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    assert prometheus, "prometheus is missing: install Debian's package."
    one = busy()
    publisher = Publisher(one.registry.snapshot)
    server = MetricsServer("127.0.0.1", 0, publisher, lambda: (True, {}))
    server.start()
    (tmp_path / "prometheus.yml").write_text(CONFIG.format(port=server.port))
    port = free_port()

    def query(text: str) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        with urllib.request.urlopen(url, timeout=5) as response:
            return list(json.load(response)["data"]["result"])

    def is_scraped() -> bool:
        try:
            return bool(query("scrape_samples_scraped > 0"))
        except OSError:
            return False

    command = [
        prometheus, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(is_scraped, "a scrape", 30)
            lines = [line for line in publisher.text().decode().splitlines() if not line.startswith("#")]
            assert int(query("scrape_samples_scraped")[0]["value"][1]) == len(lines)
            assert query("up")[0]["value"][1] == "1"
            failed = query('celery_tasks_total{state="failed"}')
            assert sum(float(one["value"][1]) for one in failed) == len(ODD)
            assert {'quote"', "back\\slash", "per%cent %d %s"} <= {one["metric"]["task"] for one in failed}
            for _ in range(3):
                one.change(change("failed", name="never.failed.before", error="E"))
                time.sleep(1.1)
            assert query('increase(celery_tasks_total{task="never.failed.before",state="succeeded"}[1m])')
        finally:
            process.terminate()
            server.stop()
