# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A table of the requests that the Hub answers, as far as models, data sets and Spaces are pushed and loaded."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from fnmatch import fnmatch
from urllib.parse import parse_qs, quote

from hub_cards import SDKS, find_errors, find_tags, read_header
from hub_repository import Commit, File, HubError, Repository


# The Hub takes larger ones in several parts, which this server does not.
STORED_LIMIT = 200 * 1024 * 1024
COMMIT_HEADER = "X-Repo-Commit"


class Unsupported(Exception):
    """Something that the Hub could answer and this server cannot."""


@dataclass(frozen=True)
class Call:
    """A request; `user` is whose token came with it, if one did."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    user: str | None

    def json(self) -> dict:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HubError(400, f"The body is no JSON: {error}") from error

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[-1].lower() in ("1", "true")


@dataclass(frozen=True)
class Reply:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def reply_json(value, status: int = 200, **headers: str) -> Reply:
    return Reply(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})


def need_user(call: Call) -> str:
    if call.user is None:
        raise HubError(401, "Invalid username or password.")
    return call.user


def find(hub, call: Call, kind: str, name: str, write: bool = False) -> Repository:
    """The repository, if this user may see it: a private one looks to all others as if it were not there."""
    repository = hub.repositories.get((kind, name))
    if repository is None or (repository.private and call.user != repository.owner):
        raise HubError(404 if call.user else 401, "Repository not found", "RepoNotFound")
    if write and need_user(call) != repository.owner:
        raise HubError(403, f"You don't have the rights to write to {name}")
    return repository


def whoami(hub, call: Call) -> Reply:
    user = need_user(call)
    token = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "write"}}
    return reply_json({"type": "user", "name": user, "fullname": user, "email": None, "orgs": [], "auth": token})


def agent_harnesses(hub, call: Call) -> Reply:
    """The client asks for them before its first request; it knows no others of its own."""
    return reply_json({"standardEnvVars": [], "harnesses": {}})


def validate_card(hub, call: Call) -> Reply:
    """As text for the library's cards, as JSON for its commits."""
    asked = call.json()
    errors = [{"message": each} for each in find_errors(asked["content"], asked["repoType"])]
    empty = not errors and not read_header(asked["content"])
    warnings = [{"message": "empty or missing yaml metadata in repo card"}] if empty else []
    if errors and call.headers.get("accept") == "text/plain":
        return Reply("\n".join(each["message"] for each in errors).encode(), 400, {"Content-Type": "text/plain"})
    return reply_json({"errors": errors, "warnings": warnings}, 400 if errors else 200)


def named(call: Call) -> tuple[str, str]:
    """Kind and name of the repository that a body speaks of."""
    asked, user = call.json(), need_user(call)
    kind, owner = asked.get("type", "model"), asked.get("organization") or user
    if kind not in ("model", "dataset", "space"):
        raise Unsupported(f"repositories of the kind {kind}")
    if not re.fullmatch(r"[\w.-]{1,96}", asked["name"]):
        raise HubError(400, f"Invalid repository name: {asked['name']!r}")
    return kind, f"{owner}/{asked['name']}"


def create_repository(hub, call: Call) -> Reply:
    kind, name = named(call)
    if name.split("/")[0] != call.user:
        raise HubError(403, f"You don't have the rights to create a {kind} under the namespace {name.split('/')[0]}")
    answer = {"url": hub.page(kind, name), "name": name}
    if (kind, name) in hub.repositories:
        return reply_json({"error": f"You already created this {kind} repo", **answer}, 409)
    if kind == "space" and call.json().get("sdk") not in SDKS:
        raise HubError(400, f"A Space needs an SDK, one of {', '.join(SDKS)}")
    hub.repositories[kind, name] = Repository(kind, name, private=call.json().get("visibility") == "private")
    return reply_json(answer)


def delete_repository(hub, call: Call) -> Reply:
    repository = find(hub, call, *named(call), write=True)
    del hub.repositories[repository.kind, repository.name]
    return reply_json({})


def describe_blob(path: str, file: File, name: str, oid: str, lfs_oid: str) -> dict:
    """The same facts go by other names in the list of siblings than in the tree."""
    answer = {name: path, "size": len(file.content), oid: file.oid}
    stored = {lfs_oid: file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}
    return {**answer, "lfs": stored} if file.lfs else answer


def repository_info(hub, call: Call, kind: str, name: str, revision: str = "main") -> Reply:
    repository = find(hub, call, kind, name)
    commit = repository.commit(revision)
    contents = repository.files(commit.id)
    data = read_header(contents.get("README.md", b"").decode())
    config = json.loads(contents.get("config.json", b"{}")) if kind == "model" else {}
    blobs = [describe_blob(path, file, "rfilename", "blobId", "sha256") for path, file in sorted(commit.files.items())]
    answer = {
        "_id": hashlib.sha1(f"{kind}/{name}".encode()).hexdigest()[:24],
        "id": name,
        "author": repository.owner,
        "sha": commit.id,
        "createdAt": repository.created,
        "lastModified": commit.date,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": find_tags(data, contents, config),
        "cardData": data,
        "siblings": blobs if call.flag("blobs") else [{"rfilename": each["rfilename"]} for each in blobs],
    }
    if kind == "model":
        known = {key: config[key] for key in ("architectures", "model_type", "auto_map") if key in config}
        answer |= {"modelId": name, "config": known, "spaces": []}
        answer |= {key: data[key] for key in ("library_name", "pipeline_tag", "model-index") if key in data}
    expand = call.query.get("expand")
    return reply_json({key: answer[key] for key in answer if not expand or key in ("_id", "id", *expand)})


def describe_path(repository: Repository, commit: Commit, path: str, expand: bool) -> dict:
    if path in commit.files:
        answer = {"type": "file", **describe_blob(path, commit.files[path], "path", "oid", "oid")}
    else:
        answer = {"type": "directory", "path": path, "size": 0, "oid": commit.folders[path]}
    if expand:
        change = repository.last_change(path, commit.id)
        answer["lastCommit"] = {"id": change.id, "title": change.title, "date": change.date}
    return answer


def tree(hub, call: Call, kind: str, name: str, revision: str, folder: str = "") -> Reply:
    repository = find(hub, call, kind, name)
    commit = repository.commit(revision)
    if folder not in commit.folders:
        raise HubError(404, f'{folder} does not exist on "{revision}"', "EntryNotFound", **{COMMIT_HEADER: commit.id})
    start = f"{folder}/" if folder else ""
    paths = [each for each in [*commit.files, *commit.folders] if each.startswith(start) and each != ""]
    if not call.flag("recursive"):
        paths = [each for each in paths if "/" not in each[len(start) :]]
    return reply_json([describe_path(repository, commit, each, call.flag("expand")) for each in sorted(paths)])


def paths_info(hub, call: Call, kind: str, name: str, revision: str) -> Reply:
    repository = find(hub, call, kind, name)
    commit, asked = repository.commit(revision), parse_qs(call.body.decode())
    expand = asked.get("expand", ["false"])[-1].lower() == "true"
    known = [each for each in asked.get("paths", []) if commit.entry(each) and each]
    return reply_json([describe_path(repository, commit, each, expand) for each in known])


def references(hub, call: Call, kind: str, name: str) -> Reply:
    repository = find(hub, call, kind, name)
    answer = {"converts": [], "pullRequests": []}
    for key, prefix, known in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags)):
        answer[key] = [
            {"name": each, "ref": f"refs/{prefix}/{each}", "targetCommit": commit} for each, commit in known.items()
        ]
    return reply_json(answer)


def history(hub, call: Call, kind: str, name: str, revision: str) -> Reply:
    repository = find(hub, call, kind, name)
    authors = [{"user": repository.owner}]
    return reply_json(
        [
            {"id": each.id, "title": each.title, "message": each.description, "date": each.date, "authors": authors}
            for each in repository.history(revision)
        ]
    )


def discussions(hub, call: Call, kind: str, name: str) -> Reply:
    """There are none; transformers looks for one that converts weights."""
    find(hub, call, kind, name)
    return reply_json({"discussions": [], "count": 0, "start": 0})


def add_reference(known: dict[str, str], name: str, commit: Commit) -> Reply:
    if name in known:
        raise HubError(409, f"Reference already exists: {name}")
    known[name] = commit.id
    return reply_json({})


def delete_reference(known: dict[str, str], name: str) -> Reply:
    if name not in known:
        raise HubError(404, f"Reference does not exist: {name}", "RevisionNotFound")
    del known[name]
    return reply_json({})


def create_branch(hub, call: Call, kind: str, name: str, branch: str) -> Reply:
    repository = find(hub, call, kind, name, write=True)
    return add_reference(repository.branches, branch, repository.commit(call.json().get("startingPoint", "main")))


def delete_branch(hub, call: Call, kind: str, name: str, branch: str) -> Reply:
    repository = find(hub, call, kind, name, write=True)
    if branch == "main":
        raise HubError(403, "The branch main cannot be deleted")
    return delete_reference(repository.branches, branch)


def create_tag(hub, call: Call, kind: str, name: str, revision: str) -> Reply:
    repository = find(hub, call, kind, name, write=True)
    return add_reference(repository.tags, call.json()["tag"], repository.commit(revision))


def delete_tag(hub, call: Call, kind: str, name: str, revision: str) -> Reply:
    return delete_reference(find(hub, call, kind, name, write=True).tags, revision)


def refuse_pull_request(call: Call) -> None:
    if call.flag("create_pr"):
        raise Unsupported("pull requests")


def preupload(hub, call: Call, kind: str, name: str, revision: str) -> Reply:
    """Where each file belongs, and what is there already: the client leaves out what it would not change."""
    repository = find(hub, call, kind, name, write=True)
    refuse_pull_request(call)
    files = repository.commit(revision).files
    own = files.get(".gitignore", File(b"")).content.decode()
    ignored = call.json().get("gitIgnore", own).split()
    answers = []
    for each in call.json()["files"]:
        sample = base64.b64decode(each["sample"])
        mode = repository.upload_mode(each["path"], each["size"], sample, revision)
        known = {"oid": files[each["path"]].etag} if each["path"] in files else {}
        ignores = any(fnmatch(each["path"], pattern) for pattern in ignored)
        answers.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": ignores, **known})
    return reply_json({"files": answers})


def commit(hub, call: Call, kind: str, name: str, revision: str) -> Reply:
    repository = find(hub, call, kind, name, write=True)
    refuse_pull_request(call)
    if call.headers.get("content-type") != "application/x-ndjson":
        raise HubError(400, "A commit is sent as application/x-ndjson")
    lines = [json.loads(line) for line in call.body.splitlines()]
    if not lines or [place for place, line in enumerate(lines) if line["key"] == "header"] != [0]:
        raise HubError(400, "A commit starts with its header, and has one")
    upload = repository.apply(revision, lines[0]["value"], [(line["key"], line["value"]) for line in lines[1:]])
    hub.uploads.append(upload)
    url = f"{hub.page(kind, name)}/commit/{upload.commit}"
    return reply_json({"success": True, "commitOid": upload.commit, "commitUrl": url, "hookOutput": ""})


def lfs_batch(hub, call: Call, kind: str, name: str) -> Reply:
    """Where to put each object; of one that is here already nothing is asked."""
    repository, asked = find(hub, call, kind, name, write=True), call.json()
    if asked["operation"] != "upload" or "basic" not in asked["transfers"]:
        raise Unsupported(f"LFS {asked['operation']} by {', '.join(asked['transfers'])}")
    objects = []
    for each in asked["objects"]:
        answer = {"oid": each["oid"], "size": each["size"]}
        if each["size"] > STORED_LIMIT:
            answer["error"] = {"code": 422, "message": "too large: this server takes no upload in parts"}
        elif each["oid"] not in repository.objects:
            verify = f"{hub.page(kind, name)}.git/info/lfs/objects/verify"
            answer["actions"] = {
                "upload": {"href": hub.address("PUT", kind, name, each["oid"])},
                "verify": {"href": verify},
            }
        objects.append(answer)
    return reply_json({"transfer": "basic", "objects": objects})


def lfs_verify(hub, call: Call, kind: str, name: str) -> Reply:
    repository, asked = find(hub, call, kind, name, write=True), call.json()
    if len(repository.objects.get(asked["oid"], b"")) != asked["size"]:
        raise HubError(404, f"Not stored with {asked['size']} bytes: {asked['oid']}")
    return reply_json({})


def check_signature(hub, call: Call, kind: str, name: str, oid: str) -> Repository:
    """As in a store elsewhere: a signed address opens it, and a token besides is an error."""
    if "authorization" in call.headers:
        raise HubError(400, "Only one way of authorization is allowed")
    if call.query.get("signature") != [hub.sign(call.method, call.path)]:
        raise HubError(403, "SignatureDoesNotMatch")
    return hub.repositories[kind, name]


def store(hub, call: Call, kind: str, name: str, oid: str) -> Reply:
    repository = check_signature(hub, call, kind, name, oid)
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise HubError(400, f"The SHA-256 of the content is not {oid}")
    repository.objects[oid] = call.body
    hub.stored.append((kind, name, oid))
    return Reply()


def fetch(hub, call: Call, kind: str, name: str, oid: str) -> Reply:
    """Under an ETag of the store's own: clients name the file by the one that the Hub gave them."""
    content = check_signature(hub, call, kind, name, oid).objects[oid]
    return reply_range(call, content, {"ETag": f'"{hashlib.md5(content).hexdigest()}"'})


def reply_range(call: Call, content: bytes, headers: dict[str, str]) -> Reply:
    """All of it, or the range asked for: files are read in pieces, and downloads go on where they broke."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", ""))
    if asked is None:
        return Reply(content, 200, headers)
    first, last = asked.groups()
    start = int(first) if first else max(0, len(content) - int(last))
    stop = min(int(last) + 1, len(content)) if first and last else len(content)
    if start >= stop:
        raise HubError(416, "Range not satisfiable", **{"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Reply(content[start:stop], 206, headers)


def resolve(hub, call: Call, kind: str, name: str, revision: str, path: str) -> Reply:
    """A regular file itself, and of a large one the address in the store, which is another host."""
    repository = find(hub, call, kind, name)
    commit = repository.commit(revision)
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", **{COMMIT_HEADER: commit.id})
    headers = {COMMIT_HEADER: commit.id, "ETag": f'"{file.etag}"'}
    if file.lfs:
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        return Reply(b"", 302, {**headers, **linked, "Location": hub.address("GET", kind, name, file.sha256)})
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(path.rpartition('/')[2])}"
    return reply_range(call, file.content, headers)


API = r"/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+(?:/[^/]+)?)"
PAGE = r"/(?P<folder_of_kind>datasets/|spaces/)?(?P<name>[^/]+(?:/[^/]+)?)"
OBJECT = r"/storage/(?P<kind>model|dataset|space)/(?P<name>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})"
REVISION = r"(?P<revision>[^/]+)"
# The first that fits; a repository's own address comes last, because a name may be of one part or of two.
ROUTES = [
    ("GET", r"/api/whoami-v2", whoami),
    ("GET", r"/api/agent-harnesses", agent_harnesses),
    ("POST", r"/api/validate-yaml", validate_card),
    ("POST", r"/api/repos/create", create_repository),
    ("DELETE", r"/api/repos/delete", delete_repository),
    ("GET", rf"{API}/tree/{REVISION}(?:/(?P<folder>.+))?", tree),
    ("POST", rf"{API}/paths-info/{REVISION}", paths_info),
    ("GET", rf"{API}/refs", references),
    ("GET", rf"{API}/commits/{REVISION}", history),
    ("GET", rf"{API}/discussions", discussions),
    ("POST", rf"{API}/branch/(?P<branch>[^/]+)", create_branch),
    ("DELETE", rf"{API}/branch/(?P<branch>[^/]+)", delete_branch),
    ("POST", rf"{API}/tag/{REVISION}", create_tag),
    ("DELETE", rf"{API}/tag/{REVISION}", delete_tag),
    ("POST", rf"{API}/preupload/{REVISION}", preupload),
    ("POST", rf"{API}/commit/{REVISION}", commit),
    ("POST", rf"{PAGE}\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", rf"{PAGE}\.git/info/lfs/objects/verify", lfs_verify),
    ("PUT", OBJECT, store),
    ("GET", OBJECT, fetch),
    ("GET", rf"{PAGE}/resolve/{REVISION}/(?P<path>.+)", resolve),
    ("GET", rf"{API}/revision/{REVISION}", repository_info),
    ("GET", API, repository_info),
]
