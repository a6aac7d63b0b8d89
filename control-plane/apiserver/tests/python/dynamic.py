"""The dynamic client: discovery, resources that a definition adds, server-side apply and its conflicts, watches."""

from common import NAMESPACE, client, expect, refused, until
from kubernetes import dynamic
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError

dyn = dynamic.DynamicClient(client.ApiClient())

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bo"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.oars",
                        "statusReplicasPath": ".status.oars",
                    },
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "oars": {"type": "integer", "default": 2, "maximum": 8},
                                    "crew": {"type": "array", "items": {"type": "string"}},
                                },
                                "x-kubernetes-validations": [
                                    {
                                        "rule": "!has(self.crew) || self.crew.size() <= self.oars",
                                        "message": "more crew than oars",
                                    }
                                ],
                            },
                            "status": {
                                "type": "object",
                                "properties": {"oars": {"type": "integer"}},
                            },
                        },
                    }
                },
            }
        ],
    },
}


def boat(name, **spec):
    return {
        "apiVersion": "example.com/v1",
        "kind": "Boat",
        "metadata": {"name": name, "labels": {"fleet": "a"}},
        "spec": {"name": name, **spec},
    }


def found(**which):
    try:
        return dyn.resources.get(**which)
    except ResourceNotFoundError:
        dyn.resources.invalidate_cache()
        return None


# Everything that discovery tells of can be listed.
for resource in dyn.resources.search():
    if isinstance(resource, dynamic.resource.ResourceList) or "list" not in resource.verbs:
        continue
    answer = resource.get()
    expect(answer.kind == f"{resource.kind}List", resource.kind, answer.kind)

definitions = dyn.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
definitions.create(body=DEFINITION)
until("the definition is served", lambda: found(api_version="example.com/v1", kind="Boat"))
boats = found(api_version="example.com/v1", kind="Boat")
expect(boats.short_names == ["bo"] and "status" in boats.subresources, boats)

made = boats.create(body=boat("ann"), namespace=NAMESPACE)
expect(made.spec.oars == 2 and made.metadata.generation == 1, made)
refused(422, boats.create, body=boat("bad", oars=9), namespace=NAMESPACE)
message = refused(422, boats.create, body=boat("bad", crew=["a", "b", "c"]), namespace=NAMESPACE)
expect("more crew than oars" in str(message.body), message.body)

watched = [
    (event["type"], event["object"].metadata.name)
    for event in boats.watch(namespace=NAMESPACE, label_selector="fleet=a", timeout=1)
]
expect(watched == [("ADDED", "ann")], watched)

# Two who apply the same field: the second is told, and may take it.
one = boats.server_side_apply(body=boat("ann", oars=4), namespace=NAMESPACE, field_manager="one", force_conflicts=True)
expect(one.spec.oars == 4 and one.metadata.generation == 2, one)
try:
    boats.server_side_apply(body=boat("ann", oars=6), namespace=NAMESPACE, field_manager="two")
    raise AssertionError("no conflict")
except ConflictError as error:
    expect('conflict with \\"one\\": .spec.oars' in str(error.body), error.body)
two = boats.server_side_apply(
    body=boat("ann", oars=6), namespace=NAMESPACE, field_manager="two", force_conflicts=True
)
owners = {entry.manager: entry.operation for entry in two.metadata.managedFields}
expect(owners.get("two") == "Apply" and two.spec.oars == 6, owners)

status = {**boat("ann"), "status": {"oars": 6}}
status["metadata"]["resourceVersion"] = two.metadata.resourceVersion
after = boats.status.replace(body=status, namespace=NAMESPACE)
expect(after.status.oars == 6 and after.spec.oars == 6, after)
scale = boats.scale.get(name="ann", namespace=NAMESPACE)
expect((scale.kind, scale.spec.replicas, scale.status.replicas) == ("Scale", 6, 6), scale)
boats.patch(
    name="ann",
    namespace=NAMESPACE,
    body={"spec": {"crew": ["a"]}},
    content_type="application/merge-patch+json",
)
expect(boats.get(name="ann", namespace=NAMESPACE).spec.crew == ["a"], "patched")

boats.delete(name="ann", namespace=NAMESPACE)
try:
    boats.get(name="ann", namespace=NAMESPACE)
    raise AssertionError("it is still there")
except NotFoundError as error:
    expect('boats.example.com \\"ann\\" not found' in str(error.body), error.body)
definitions.delete(name="boats.example.com")


def unserved():
    try:
        boats.get(namespace=NAMESPACE)
    except NotFoundError:
        return True
    return False


until("the definition is gone", unserved)
print("ended", flush=True)
