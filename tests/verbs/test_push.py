"""Bundles travel to the Hub and back, over the HTTP interface of one that runs here."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import vltok
from tests.cli.exports import PRIOR, write_bundle, write_prior
from tests.cli.runs import one_line
from vltok.cli.main import main
from vltok.compression.tables import CodeTables
from vltok.errors import UserError
from vltok.io.bundle_files import fingerprint_of
from vltok.io.bundles import fingerprint
from vltok.rates import RateCalibration
from vltok.testing.outcomes import random_codes

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES: dict[str, dict[str, bytes]] = {}


class Hub(BaseHTTPRequestHandler):
    """What the Hub's client asks for when a few small files are written and read."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, _, *rest = self.path.split("?")[0].split("/")
        if self.headers.get("Authorization") not in ("Bearer writer", "Bearer reader"):
            return self.answer(401, {"error": "Invalid username or password."})
        if self.headers["Authorization"] == "Bearer reader":
            return self.answer(403, {"error": "Forbidden"})
        if rest[0] == "repos":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            REPOSITORIES.setdefault(name, {})
            return self.answer(200, {"url": f"{self.home}/{name}"})
        if rest[0] == "validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        name = "/".join(rest[1:3])
        if rest[3] == "preupload":
            files = [each["path"] for each in json.loads(body)["files"]]
            regular = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
            return self.answer(200, {"files": regular})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                REPOSITORIES[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer(200, {"commitUrl": f"{self.home}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self) -> None:
        _, first, *rest = self.path.split("?")[0].split("/")
        name = "/".join(rest[1:3]) if first == "api" else f"{first}/{rest[0]}"
        files = REPOSITORIES.get(name)
        if files is None:
            return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if first != "api":
            return self.answer(200, files[rest[-1]], {"ETag": f'"{rest[-1]}"', "X-Repo-Commit": COMMIT})
        if "tree" in rest:
            listed = [{"type": "file", "path": path, "size": len(files[path]), "oid": path} for path in files]
            return self.answer(200, listed)
        return self.answer(200, {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})

    do_HEAD = do_GET

    @property
    def home(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    REPOSITORIES.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "writer")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    server.shutdown()
    server.server_close()


def test_a_tokenizer_goes_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tokenizer = write_bundle(tmp_path / "run" / "bundle")
    (tmp_path / "run" / "reconstructions.png").write_bytes(b"png")
    options = ["--license", "apache-2.0", "--datasets", "imagenet-1k"]
    assert main(["push", str(tmp_path / "run" / "bundle"), "user/vq", *options]) == 0
    assert capsys.readouterr().out.endswith(f"/user/vq/commit/{COMMIT}\n")
    card = REPOSITORIES["user/vq"]["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["license"], front["datasets"], front["library_name"]) == ("apache-2.0", ["imagenet-1k"], "vltok")
    assert "\n# vq\n" in card and "# bundle" not in card
    assert 'vltok.load_tokenizer("user/vq")' in card and "](reconstructions.png)" in card
    assert REPOSITORIES["user/vq"]["reconstructions.png"] == b"png"
    again = vltok.Tokenizer.from_pretrained("user/vq", cache_dir=tmp_path / "cache")
    for name, value in tokenizer.state_dict().items():
        assert again.state_dict()[name].equal(value), name
    assert again.push_to_hub("user/again", token="writer", license="mit").endswith(COMMIT)
    again.save_pretrained(tmp_path / "saved")
    assert fingerprint(tmp_path / "saved") == fingerprint(tmp_path / "run" / "bundle")
    with pytest.raises(UserError, match="holds a DQVAE, not a Other"):
        type("Other", (vltok.Tokenizer,), {}).from_pretrained(tmp_path / "saved")


def test_what_was_measured_goes_with_it(tmp_path: Path) -> None:
    tokenizer = write_bundle(tmp_path / "bundle")
    tokenizer.calibration = RateCalibration((1.0, 0.0), (0.25, 1.0), 12, "photos")
    vltok.save_tokenizer(tokenizer, tmp_path / "bundle")
    tables = CodeTables.measure([random_codes(tokenizer.spec, 4)], tokenizer.spec)
    tables.save(tmp_path / "bundle")
    vltok.push(tmp_path / "bundle", "user/vq")
    assert vltok.load_tokenizer("user/vq").calibration == tokenizer.calibration
    assert [found.name for found in CodeTables.stored("user/vq", tokenizer.spec)] == [tables.name]


def test_a_prior_finds_its_tokenizer_there(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tokenizer")
    write_prior(tmp_path / "prior", PRIOR, fingerprint(tmp_path / "tokenizer"))
    vltok.push(tmp_path / "tokenizer", "user/vq")
    prior = vltok.Prior.from_pretrained(tmp_path / "prior")
    prior.push_to_hub("user/gpt", tokenizer=tmp_path / "tokenizer")
    assert yaml.safe_load(REPOSITORIES["user/gpt"]["config.yaml"])["tokenizer"]["places"] == []
    vltok.push(tmp_path / "prior", "user/gpt", tokenizer="user/vq")
    assert yaml.safe_load(REPOSITORIES["user/gpt"]["config.yaml"])["tokenizer"]["places"] == ["user/vq"]
    prior.save_pretrained(tmp_path / "saved", tmp_path / "tokenizer")
    assert vltok.find_tokenizer(tmp_path / "saved") == str(tmp_path / "tokenizer")
    write_bundle(tmp_path / "other", seed=1)
    vltok.push(tmp_path / "other", "user/other")
    with pytest.raises(UserError, match="'user/other' is another one than that whose codes"):
        vltok.push(tmp_path / "prior", "user/gpt", tokenizer="user/other")


def test_names_of_files_are_published_and_not_where_they_lie(tmp_path: Path) -> None:
    photos = str(tmp_path / "a folder of a name so long that no line holds it" / "más photos of mine" / "my photos")
    tokenizer = write_bundle(tmp_path / "bundle")
    recipe = {
        "start": str(tmp_path / "first"),
        "data": {"root": photos, "shards": ["shards/a-*.tar", "s3://me:secret@bucket/b.tar", r"C:\\Users\\me\\c.tar"]},
        "model": {"base": "user/vq", "metric": "1/2"},
    }
    card = f"Data:\n\n```json\n{json.dumps({'root': photos, 'held_out': '/mnt/elsewhere/val'})}\n```"
    provenance = {"by": "vltok fit", "recipe": recipe, "protocol": {"data": photos}}
    vltok.save_tokenizer(tokenizer, tmp_path / "bundle", card, provenance=provenance)
    vltok.push(tmp_path / "bundle", "user/published")
    files = REPOSITORIES["user/published"]
    told = yaml.safe_load(files["config.yaml"])["provenance"]
    assert told["recipe"] == {
        "start": "first",
        "data": {"root": "my photos", "shards": ["a-*.tar", "s3://bucket/b.tar", "c.tar"]},
        "model": {"base": "user/vq", "metric": "1/2"},
    }
    text = b"".join(files[name] for name in ("config.yaml", "README.md")).decode()
    assert not any(word in text for word in (str(tmp_path), "/mnt", "Users", "secret"))
    assert '"root": "my photos", "held_out": "val"' in text
    assert fingerprint(tmp_path / "bundle") == fingerprint_of(yaml.safe_load(files["config.yaml"]), "tokenizer")
    assert vltok.info(tmp_path / "bundle").provenance["recipe"]["data"]["root"] == photos


def test_what_does_not_go_is_one_line(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    write_bundle(tmp_path / "bundle")

    def said(*arguments: str) -> str:
        assert main(["push", *arguments]) == 1
        return one_line(capsys)

    bundle = str(tmp_path / "bundle")
    assert "'vq' is no repository's name" in said(bundle, "vq")
    assert "names a revision" in said(bundle, "user/vq@main")
    assert "there is no bundle" in said(str(tmp_path / "nowhere"), "user/vq")
    assert "tokenizer is for priors" in said(bundle, "user/vq", "--tokenizer", "user/other")
    monkeypatch.setenv("HF_TOKEN", "reader")
    assert "the token may not write there" in said(bundle, "user/vq")
    monkeypatch.setenv("HF_TOKEN", "nobody")
    assert "it knows no token that is valid" in said(bundle, "user/vq")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "the Hugging Face Hub does not take 'user/vq'" in said(bundle, "user/vq")
    assert not REPOSITORIES
    with pytest.raises(UserError, match=r"no such repository|does not answer|does not give it"):
        vltok.Prior.from_pretrained("user/none")
