"""Reads the deployment files: argument 1 is their directory. Prints what is in them as JSON, and what linters say.

A key that stands twice in a mapping is an error; YAML's readers otherwise take the last one and say nothing. yamllint and
kubernetes-validate are asked where they are installed.
"""

import json
import pathlib
import subprocess
import sys

import yaml


class Strict(yaml.SafeLoader):
    pass


def mapping(loader, node):
    seen = set()
    for key, _ in node.value:
        if key.value in seen and key.value != "<<":
            raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def documents(path):
    with open(path, encoding="utf-8") as file:
        return list(yaml.load_all(file, Loader=Strict))


def lint(module, arguments):
    """What a linter complains of; nothing where it is not installed."""
    try:
        __import__(module)
    except ModuleNotFoundError:
        print(f"{module} is not installed", file=sys.stderr)
        return ""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


directory = pathlib.Path(sys.argv[1])
compose, kubernetes = directory / "compose.yaml", directory / "kubernetes.yaml"
rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
print(
    json.dumps(
        {
            "compose": documents(compose)[0],
            "kubernetes": documents(kubernetes),
            "lint": lint("yamllint", ["--strict", "-d", rules, str(compose), str(kubernetes)])
            + lint("kubernetes_validate", ["--strict", str(kubernetes)]),
        }
    )
)
