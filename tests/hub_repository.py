# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a repository on the Hub holds: files, commits, branches and stored objects, hashed as git and git-LFS do."""

import base64
import binascii
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property

from hub_cards import find_errors


LARGE = "arrow bin bz2 ckpt gz h5 joblib model msgpack npy npz onnx parquet pickle pkl pt pth safetensors tar xz zip"
GIT_ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE.split()).encode()
# With which a new Space begins.
SPACE_CARD = b"""---
title: New
emoji: \xf0\x9f\x93\x88
colorFrom: pink
colorTo: gray
sdk: gradio
sdk_version: 6.0.0
app_file: app.py
pinned: false
---

Check out the configuration reference at https://huggingface.co/docs/hub/spaces-config-reference
"""
# A regular file is a git blob, of which the Hub takes no larger ones.
REGULAR_LIMIT = 10 * 1024 * 1024


class HubError(Exception):
    """A refusal, which the client's library turns into its own exception by the status and by `X-Error-Code`."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **headers}
        if code is not None:
            self.headers["X-Error-Code"] = code


def git_hash(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git sees of a file that is stored elsewhere."""
        lines = (
            "version https://git-lfs.github.com/spec/v1",
            f"oid sha256:{self.sha256}",
            f"size {len(self.content)}",
        )
        return "".join(f"{line}\n" for line in lines).encode()

    @cached_property
    def oid(self) -> str:
        return git_hash("blob", self.pointer if self.lfs else self.content)

    @property
    def etag(self) -> str:
        """What clients compare with their own file, and name it by in their cache."""
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str | None
    title: str
    description: str
    date: str
    files: dict[str, File]

    @cached_property
    def folders(self) -> dict[str, str]:
        return hash_folders(self.files)

    def entry(self, path: str) -> str | None:
        """Hash of a file or folder, by which a change of either shows."""
        return self.files[path].oid if path in self.files else self.folders.get(path)


@dataclass(frozen=True)
class Upload:
    """What one commit named; a file of unchanged content that the client left out is not among it."""

    repository: tuple[str, str]
    branch: str
    commit: str
    message: str
    regular: frozenset[str]
    lfs: frozenset[str]
    deleted: frozenset[str]

    @property
    def paths(self) -> frozenset[str]:
        return self.regular | self.lfs


def parents(path: str) -> list[str]:
    """Every folder above, the root as the empty name."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts))]


def hash_folders(files: dict[str, File]) -> dict[str, str]:
    """Git's hash of every folder, the root's under the empty name."""
    entries = defaultdict(list, {"": []})
    for path, file in files.items():
        folder, _, name = path.rpartition("/")
        entries[folder].append((name, "100644", file.oid))
        for each in parents(path):
            entries.setdefault(each, [])
    hashes = {}
    for folder in sorted(entries, key=lambda each: len(each.split("/")) if each else 0, reverse=True):
        # Git sorts a folder as if its name ended in a slash.
        rows = sorted(entries[folder], key=lambda row: (row[0] + "/" * (row[1] == "40000")).encode())
        lines = (f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, mode, oid in rows)
        hashes[folder] = git_hash("tree", b"".join(lines))
        if folder:
            parent, _, name = folder.rpartition("/")
            entries[parent].append((name, "40000", hashes[folder]))
    return hashes


class Repository:
    """A model's, data set's or Space's repository, readable by tests; only commits change it."""

    def __init__(self, kind: str, name: str, private: bool = False):
        self.kind, self.name, self.private = kind, name, private
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commits: dict[str, Commit] = {}
        self.objects: dict[str, bytes] = {}  # what was uploaded by LFS, committed or not, by sha256
        first = {".gitattributes": File(GIT_ATTRIBUTES)} | ({"README.md": File(SPACE_CARD)} if kind == "space" else {})
        self._append("main", None, first, "initial commit", "")

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    @property
    def created(self) -> str:
        return next(iter(self.commits.values())).date

    def commit(self, revision: str = "main") -> Commit:
        """The commit that a branch, a tag, a hash or its first seven digits or more names."""
        known = self.branches.get(revision) or self.tags.get(revision)
        if known is None and len(revision) >= 7:
            known = next((each for each in self.commits if each.startswith(revision)), None)
        if known is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[known]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {path: file.content for path, file in self.commit(revision).files.items()}

    def history(self, revision: str = "main") -> list[Commit]:
        """Newest first."""
        commits = [self.commit(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def messages(self, revision: str = "main") -> list[str]:
        return [each.title for each in self.history(revision)]

    def last_change(self, path: str, revision: str) -> Commit:
        history = self.history(revision)
        for commit, before in zip(history, history[1:], strict=False):
            if commit.entry(path) != before.entry(path):
                return commit
        return history[-1]

    def upload_mode(self, path: str, size: int, sample: bytes, revision: str) -> str:
        """Whether a file belongs into git or into the storage of large files; text that is small goes into git."""
        attributes = self.commit(revision).files.get(".gitattributes", File(b"")).content.decode()
        patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line.split()]
        name = path.rpartition("/")[2]
        named = any(fnmatch(path if "/" in pattern else name, pattern) for pattern in patterns)
        return "lfs" if named or size > REGULAR_LIMIT or b"\0" in sample else "regular"

    def apply(self, branch: str, header: dict, operations: list[tuple[str, dict]]) -> Upload:
        """One commit of what the lines of its request name, or a refusal that leaves everything as it was."""
        if branch not in self.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = self.branches[branch]
        if header.get("parentCommit", head) != head:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        if not header.get("summary"):
            raise HubError(400, "A commit needs a summary")
        files, touched = dict(self.commits[head].files), defaultdict(set)
        for kind, value in operations:
            if kind not in OPERATIONS:
                raise HubError(400, f"Unknown operation in a commit: {kind}")
            touched[kind] |= OPERATIONS[kind](self, branch, files, value)
        mixed = {each for path in files for each in parents(path)} & set(files)
        if mixed:
            raise HubError(400, f"Both a file and a folder: {', '.join(sorted(mixed))}")
        commit = self._append(branch, head, files, header["summary"], header.get("description", ""))
        deleted = frozenset(touched["deletedFile"] | touched["deletedFolder"])
        kinds = frozenset(touched["file"]), frozenset(touched["lfsFile"]), deleted
        return Upload((self.kind, self.name), branch, commit.id, commit.title, *kinds)

    def _append(self, branch: str, parent: str | None, files: dict, title: str, description: str) -> Commit:
        date = datetime.now(UTC)
        lines = [f"tree {hash_folders(files)['']}", *([f"parent {parent}"] if parent else [])]
        lines += [f"{role} {self.owner} <> {int(date.timestamp())} +0000" for role in ("author", "committer")]
        text = "\n".join([*lines, "", title, "", description])
        stamp = date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        commit = Commit(git_hash("commit", text.encode()), parent, title, description, stamp, files)
        self.commits[commit.id] = commit
        self.branches[branch] = commit.id
        return commit


def check_path(path: str) -> str:
    if any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise HubError(400, f"Invalid path in a commit: {path!r}")
    return path


def add_regular(repository: Repository, branch: str, files: dict[str, File], value: dict) -> set[str]:
    path = check_path(value["path"])
    if value.get("encoding") != "base64":
        raise HubError(400, f"Unknown encoding of {path}: {value.get('encoding')}")
    try:
        content = base64.b64decode(value["content"], validate=True)
    except binascii.Error as error:
        raise HubError(400, f"Content of {path} is not base64: {error}") from error
    # The storage of large files takes no empty ones.
    if content and repository.upload_mode(path, len(content), content[:512], branch) == "lfs":
        raise HubError(400, f"Your push was rejected because {path} is binary or large: upload it with LFS")
    errors = find_errors(content.decode(), repository.kind) if path == "README.md" else []
    if errors:
        raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
    files[path] = File(content)
    return {path}


def add_stored(repository: Repository, branch: str, files: dict[str, File], value: dict) -> set[str]:
    path = check_path(value["path"])
    content = repository.objects.get(value["oid"])
    if value.get("algo") != "sha256" or content is None:
        raise HubError(400, f"LFS pointer of {path} points to a file that does not exist: {value['oid']}")
    if value.get("size", len(content)) != len(content):
        raise HubError(400, f"LFS pointer of {path} says {value['size']} bytes, of which {len(content)} are stored")
    files[path] = File(content, lfs=True)
    return {path}


def delete_file(repository: Repository, branch: str, files: dict[str, File], value: dict) -> set[str]:
    if value["path"] not in files:
        raise HubError(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")
    del files[value["path"]]
    return {value["path"]}


def delete_folder(repository: Repository, branch: str, files: dict[str, File], value: dict) -> set[str]:
    inside = {path for path in files if path.startswith(value["path"].rstrip("/") + "/")}
    if not inside:
        raise HubError(404, f"A folder with this name doesn't exist: {value['path']}", "EntryNotFound")
    for path in inside:
        del files[path]
    return inside


OPERATIONS = {
    "file": add_regular,
    "lfsFile": add_stored,
    "deletedFile": delete_file,
    "deletedFolder": delete_folder,
}
