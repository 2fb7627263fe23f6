"""Flower's configuration where there is no other: everything comes from the environment."""

from flowerbed.install import install as _install

_install(globals())
