"""The scenarios, a file for each group."""

import importlib
import pkgutil

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{module.name}')
