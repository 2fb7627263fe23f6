# {{ ansible_managed }}
# Options of Flower, each by its own name. Secrets come from systemd's credentials, never from here.
{% for name, value in (__flower_named_options | combine(flower_options) | flowerbed.celery.flower_options).items() %}
{{ name }} = {{ value | flowerbed.celery.python_literal }}
{% endfor %}
{% if flower_format_task %}
from {{ flower_format_task.split(':')[0] }} import {{ flower_format_task.split(':')[1] }} as format_task
{% endif %}

from flowerbed.install import install as _install

_install(globals())
