"""A git repository of the team that writes a workflow."""

import subprocess
from pathlib import Path


class Repository:
    """A git repository with a workflow in the folder `workflow`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "workflow").mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        """Where git fetches it from."""
        return f"file://{self.folder}"

    def git(self, *arguments: str) -> str:
        """Run git in it, whatever the settings of this machine's user."""
        who = ["-c", "user.name=author", "-c", "user.email=author@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        """Commit the workflow with exactly these files, names with `__` for a dot; gives the commit."""
        for file in (self.folder / "workflow").iterdir():
            file.unlink()
        for name, text in files.items():
            (self.folder / "workflow" / name.replace("__", ".")).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")
        return self.git("rev-parse", "HEAD")
