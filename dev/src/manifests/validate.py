"""Compares manifests with the schemas of Kubernetes: validate.py FILE…

Prints a line for each fault and ends with 1 if there is one; else prints the versions that were compared. Kinds of operators have no
schema here.
"""

import functools
import json
import sys

import jsonschema
import yaml
from kubernetes_validate import utils

OLDEST = (1, 30)
OPERATORS = {"HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject"}

# Each schema is read once, not for each object.
utils.schema_contents = functools.cache(utils.schema_contents)


def number(version):
    return tuple(int(part) for part in version.split(".")[:2])


def fault(manifest, version):
    try:
        utils.validate(manifest, version, strict=True)
    except utils.SchemaNotFoundError:
        if manifest["kind"] in OPERATORS:
            return None
        return f"there is no {manifest['apiVersion']} {manifest['kind']}"
    except jsonschema.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return None


def main(files):
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    manifests = {}
    for file in files:
        with open(file) as opened:
            for manifest in filter(None, yaml.load_all(opened, Loader=loader)):
                manifests.setdefault(json.dumps(manifest, sort_keys=True), (file, manifest))
    versions = sorted({number(version) for version in utils.all_versions()})
    versions = [version for version in versions if version >= OLDEST]
    faults = 0
    for version in (f"{major}.{minor}" for major, minor in versions):
        for file, manifest in manifests.values():
            found = fault(manifest, version)
            if found:
                faults += 1
                print(f"{file}: {manifest['kind']} {manifest['metadata']['name']}, Kubernetes {version}: {found}")
    if not faults:
        print(f"{len(manifests)} objects, Kubernetes " + ", ".join(f"{major}.{minor}" for major, minor in versions))
    return 1 if faults else 0


sys.exit(main(sys.argv[1:]))
