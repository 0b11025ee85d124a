import subprocess
import sys
from pathlib import Path

from tests.support.feedservice import FeedService, environ

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


def test_answers_are_those_of_the_document(shared: FeedService, tmp_path: Path) -> None:
    """Schemathesis finds no 500 and no answer that /openapi.json does not have."""
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(
        f"""
headers = {{ Authorization = "Bearer {shared.keys["reader"]}" }}

[parameters]
"path.key" = "{shared.keys["reader"]}"

[[operations]]
include-path = "/api/report"
headers = {{ Authorization = "Bearer {shared.keys["pot"]}" }}
""",
        encoding="utf-8",
    )
    options = (
        f"--checks {','.join(CHECKS)} --phases examples,coverage,fuzzing --max-examples 40"
        " --seed 1 --continue-on-failure --no-shrink --suppress-health-check all"
    ).split()
    program = str(Path(sys.executable).parent / "schemathesis")
    document = f"http://127.0.0.1:{shared.port}/openapi.json"
    ended = subprocess.run(
        [program, "--config-file", str(settings), "run", document, *options],
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
