"""What the dashboards and alerts of celery-exporter ask Prometheus, made from a few forms.

Source: https://github.com/danihodovic/celery-exporter, celery-mixin/ (`dashboards_out/*.json`, which are Grafana's
17508 and 17509, and the older `celery-tasks.json`; `prometheus_alerts.yaml`), August 2026.  The waits in queues are
of the dashboards that come next.  Compared with these files by a script: the same 89 expressions but for white space.
"""

from __future__ import annotations

from collections.abc import Iterator

#: what stands between braces: on the overview, below a chosen queue, below a chosen task, and on the older dashboard
PLACE = 'cluster="$cluster",namespace="$namespace",job=~"$job"'
OVERVIEW = f'{PLACE},queue_name!~"None"'
QUEUE = f'{PLACE},queue_name=~"$queue_name",queue_name!~"None"'
TASK = f'{QUEUE},name=~"$task",name!~"None"'
OLDER = 'job=~"celery|celery-exporter"'
OLDER_TASK = f'{OLDER},name=~"$task"'
STATES = ("succeeded", "failed", "sent", "received", "retried", "revoked", "rejected")
#: selectors of the lists from which an operator chooses
VARIABLES = (
    "celery_worker_up{}",
    'celery_worker_up{cluster="$cluster"}',
    'celery_worker_up{cluster="$cluster",namespace="$namespace"}',
    f"celery_task_received_total{{{OVERVIEW}}}",
    f'celery_task_received_total{{{PLACE},queue_name=~"$queue_name",name!~"None"}}',
    "celery_task_sent_total",
)
#: what Grafana puts in; `.*` is its "All"
VALUES = {
    "$__rate_interval": "1m", "$__range": "1h", "$cluster": "test", "$namespace": "shop", "$job": ".*celery.*",
    "$queue_name": ".*", "$task": ".*",
}  # fmt: skip
#: as they are in the file, but that they need not be true for as long
ALERTS = """
groups:
  - name: celery
    rules:
      - alert: CeleryTaskHighFailRate
        expr: |
          sum(increase(celery_task_failed_total{job=~".*celery.*", queue_name!~"None", name!~"None"}[10m]))
            by (job, namespace, queue_name, name)
          / (
            sum(increase(celery_task_failed_total{job=~".*celery.*", queue_name!~"None", name!~"None"}[10m]))
              by (job, namespace, queue_name, name)
            + sum(increase(celery_task_succeeded_total{job=~".*celery.*", queue_name!~"None", name!~"None"}[10m]))
              by (job, namespace, queue_name, name)
          ) * 100 > 5
        for: 1s
      - alert: CeleryHighQueueLength
        expr: sum(celery_queue_length{job=~".*celery.*", queue_name!~"None"}) by (job, namespace, queue_name) > 100
        for: 1s
      - alert: CeleryWorkerDown
        expr: celery_worker_up{job=~".*celery.*"} == 0
        for: 1s
"""


def increase(state: str, selector: str, range_: str) -> str:
    return f"increase(celery_task_{state}_total{{{selector}}}[{range_}])"


def rounded(state: str, selector: str, range_: str, by: str = "") -> str:
    return f"sum(round({increase(state, selector, range_)}))" + (f"by({by})" if by else "")


def older(state: str, selector: str, range_: str) -> str:
    return f"sumby(name)(round({increase(state, selector, range_)}))"


def share(succeeded: str) -> str:
    """How many succeed of all that end."""
    return f"{succeeded}/({succeeded}+{succeeded.replace('succeeded', 'failed')})"


def mean(selector: str, range_: str, by: str = "", before: str = "sum") -> str:
    parts = (f"{before}(rate(celery_task_runtime_{part}{{{selector}}}[{range_}])){by}" for part in ("sum", "count"))
    return "/".join(parts) + ">0"


def expressions() -> Iterator[str]:
    """Every expression, without white space and with Grafana's variables."""
    for selector in (OVERVIEW, OLDER):
        yield f"count(celery_worker_up{{{selector}}}==1)"
        yield f"sum(celery_worker_tasks_active{{{selector}}})"
    yield f"count(groupby(queue_name)(celery_queue_length{{{OVERVIEW}}}))"
    yield f"topk(10,sum(celery_queue_length{{{OVERVIEW}}})by(queue_name))"
    yield f"sum(celery_queue_length{{{QUEUE}}})by(job,queue_name)"
    for selector, by in ((OVERVIEW, "name"), (QUEUE, "name"), (QUEUE, "queue_name")):
        yield f"topk(10,sum(rate(celery_task_received_total{{{selector}}}[6h]))by({by}))"
    for state in STATES:
        yield f"sum({increase(state, OVERVIEW, '6h')})"
        yield f"sum({increase(state, QUEUE, '6h')})"
        yield rounded(state, QUEUE, "$__range", "job")
        yield rounded(state, QUEUE, "$__rate_interval")
        yield rounded(state, TASK, "$__rate_interval", "name")
        yield rounded(state, TASK, "1w", "name")
        if state != "sent":
            yield f"{older(state, OLDER_TASK, '$__range')}>0"
            yield older(state, OLDER_TASK, "10m")
    yield rounded("received", OVERVIEW, "1w")
    yield rounded("received", OLDER, "1d")
    yield share(rounded("succeeded", OVERVIEW, "1w"))
    yield share(rounded("succeeded", OLDER, "1d"))
    yield share(rounded("succeeded", QUEUE, "$__range", "job")) + ">-1"
    yield share(rounded("succeeded", TASK, "1w", "name")) + ">-1"
    yield share(older("succeeded", OLDER_TASK, "$__range")) + ">-1"
    yield share(f"sum(rate(celery_task_succeeded_total{{{TASK}}}[$__rate_interval]))")
    yield rounded("failed", TASK, "$__rate_interval", "name,exception")
    for selector, by in ((QUEUE, "job,name"), (QUEUE, "job,exception"), (TASK, "name,exception")):
        yield f"round(sum({increase('failed', selector, '1w')})by({by}))"
    for by in ("name", "exception"):
        yield f"round(topk(5,sumby({by})({increase('failed', OLDER, '1d')}>0)))"
    yield mean(OVERVIEW, "1w")
    yield mean(OLDER, "1d")
    yield mean(QUEUE, "1w", "by(name)")
    yield mean(OLDER_TASK, "10m", before="sumby(name)")
    yield f"topk(5,({mean(OLDER, '1d', before='sumby(name)')}))"
    for part in ("0.50", "0.95", "0.99"):
        for selector, by in ((QUEUE, "job,le"), (TASK, "name,job,le")):
            buckets = f"irate(celery_task_runtime_bucket{{{selector}}}[$__rate_interval])"
            yield f"histogram_quantile({part},sum({buckets})by({by}))"
    for part, by in (("0.50", "le"), ("0.95", "le"), ("0.99", "le"), ("0.95", "le,job,name")):
        buckets = f"rate(celery_task_queue_wait_time_bucket{{{QUEUE}}}[$__rate_interval])"
        yield f"histogram_quantile({part},sum({buckets})by({by}))"


def filled(expression: str) -> str:
    """An expression as Grafana sends it."""
    for variable, value in VALUES.items():
        expression = expression.replace(variable, value)
    return expression.replace("sumby(", "sum by(").replace("groupby(", "group by(")
