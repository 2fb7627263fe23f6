# {{ ansible_managed }}
# Options of Flower, each by its own name. Secrets come from systemd's credentials, never from here.
{#- The casts undo what -e on a command line does to types; Flower crashes on an int where it wants a float. -#}
{%- set named = {
  'persistent': flower_persistent | bool,
  'db': '/var/lib/flower/' ~ flower_instance ~ '/flower',
  'state_save_interval': flower_state_save_interval | int,
  'max_tasks': flower_max_tasks | int,
  'max_workers': flower_max_workers | int,
  'purge_offline_workers': flower_purge_offline_workers | int,
  'enable_events': flower_enable_events | bool,
  'inspect_timeout': flower_inspect_timeout | float,
  'auto_refresh': flower_auto_refresh | bool,
  'natural_time': flower_natural_time | bool,
  'tasks_columns': flower_tasks_columns | join(','),
  'task_runtime_metric_buckets': flower_task_runtime_metric_buckets | map('float') | list,
  'url_prefix': __flower_prefix,
  'logging': flower_logging,
} %}
{#- Flower before 2.1 does not know it. -#}
{%- set named = named | combine({'read_only': true} if flower_read_only | bool else {}) %}

{% for name, value in (named | combine(flower_options) | flowerbed.celery.flower_options).items() %}
{{ name }} = {{ value | flowerbed.celery.python_literal }}
{% endfor %}
{% if flower_format_task %}
from {{ flower_format_task.split(':')[0] }} import {{ flower_format_task.split(':')[1] }} as format_task
{% endif %}

from flowerbed.install import install as _install

_install(globals())
