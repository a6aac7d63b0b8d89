"""Informers through kill -9 of the server and through compaction: what they hold in the end is what is there."""

import random
import threading

from common import NAMESPACE, ApiException, ask, client, expect, refused, until
from kubernetes import informer, watch

LABELS = {"app": "informed"}
core = client.CoreV1Api()
random.seed(7)


def config_map(name, value):
    metadata = client.V1ObjectMeta(name=name, labels=LABELS)
    return client.V1ConfigMap(metadata=metadata, data={"value": value})


def listed(**more):
    return core.list_namespaced_config_map(NAMESPACE, label_selector="app=informed", **more)


def versions(items):
    return {item.metadata.name: item.metadata.resource_version for item in items}


def write(count):
    """Creates, changes and deletes at random."""
    for i in range(count):
        names = sorted(versions(listed().items)) if i % 10 == 0 else names
        choice = random.random()
        if choice < 0.4 or not names:
            name = f"m{random.randrange(10**9)}"
            core.create_namespaced_config_map(NAMESPACE, config_map(name, "new"))
            names.append(name)
        elif choice < 0.6:
            body = {"data": {"value": str(i)}}
            core.patch_namespaced_config_map(random.choice(names), NAMESPACE, body)
        elif choice < 0.75:
            name = random.choice(names)
            core.replace_namespaced_config_map(name, NAMESPACE, config_map(name, f"whole {i}"))
        else:
            name = names.pop(random.randrange(len(names)))
            core.delete_namespaced_config_map(name, NAMESPACE)


class Informed:
    """An informer, and what it was told."""

    def __init__(self):
        self.inner = informer.SharedInformer(
            core.list_namespaced_config_map, namespace=NAMESPACE, label_selector="app=informed"
        )
        self.errors = []
        self.going_back = []
        self.newest = 0
        self.lock = threading.Lock()
        for kind in (informer.ADDED, informer.MODIFIED):
            self.inner.add_event_handler(kind, self.seen)
        self.inner.add_event_handler(informer.ERROR, self.errors.append)
        self.inner.start()

    def seen(self, item):
        with self.lock:
            self.newest = max(self.newest, int(item.metadata.resource_version))

    def agrees(self):
        return versions(self.inner.cache.list()) == versions(listed().items)

    def gone(self):
        return sum(isinstance(e, ApiException) and e.status == 410 for e in self.errors)


def through_restarts():
    informed = Informed()
    for round in range(3):
        write(40)
        until("the informer sees everything", informed.agrees)
        ask("restart")
        until("the server answers", lambda: core.get_api_resources() is not None)
        write(20)
        until("the informer sees what came after the restart", informed.agrees)
    informed.inner.stop()
    return informed


def through_compaction(informed):
    # More than the server keeps, while nobody watches.
    write(300)
    before = informed.gone()
    informed.inner.start()
    until("the informer begins anew", lambda: informed.gone() > before)
    until("the informer sees everything", informed.agrees)
    write(20)
    until("the informer goes on", informed.agrees)
    informed.inner.stop()


def pages_expire():
    for i in range(5):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page{i}", ""))
    first = listed(limit=2)
    expect(first.metadata.remaining_item_count is None, "a selector has no count of the rest")
    rest = listed(limit=500, _continue=first.metadata._continue)
    expect(len(first.items) + len(rest.items) == len(listed().items), "pages are a list")
    expect(rest.metadata.resource_version == first.metadata.resource_version, "of one moment")
    write(300)
    late = refused(410, listed, limit=500, _continue=first.metadata._continue)
    expect('"reason":"Expired"' in late.body.replace(" ", ""), late.body)
    expect('"continue":' in late.body, "a token to go on with", late.body)


def bookmarks():
    """A list as a watch: the state, then the mark of its end."""
    seen = []
    stream = watch.Watch().stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        label_selector="app=informed",
        send_initial_events=True,
        resource_version_match="NotOlderThan",
        allow_watch_bookmarks=True,
        timeout_seconds=20,
    )
    for event in stream:
        if event["type"] == "BOOKMARK":
            annotations = event["raw_object"]["metadata"]["annotations"]
            expect(annotations["k8s.io/initial-events-end"] == "true", event)
            break
        expect(event["type"] == "ADDED", event)
        seen.append(event["object"])
    expect(versions(seen) == versions(listed().items), "the state is the list")


def old_versions():
    """A watch from what is forgotten is told so, and one from the future is refused."""
    stream = watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version="1", timeout_seconds=5
    )
    error = refused(410, lambda: next(stream))
    expect("too old resource version: 1" in str(error.reason), error)
    newest = int(listed().metadata.resource_version)
    error = refused(504, listed, resource_version=str(newest + 1000))
    expect("Too large resource version" in error.body, error.body)


through_compaction(through_restarts())
pages_expire()
bookmarks()
old_versions()
print("ended", flush=True)
