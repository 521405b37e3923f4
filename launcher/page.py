"""`bottle ui`: the page on the terminal. Bottles, what flows and what is refused, and what waits for an answer."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Header, Input, Label, RichLog
from textual.worker import Worker, get_current_worker

from launcher import bottles, state
from launcher.backend import BottleBackend
from launcher.cli.console import printable
from launcher.docker import lines_of, run
from launcher.errors import LauncherError
from launcher.health import health_of
from launcher.notices import tell_person
from launcher.status import COLUMNS, Status, row, statuses

EVERY_S = 2.0
BOTTLES = dict(zip(COLUMNS, (24, 12, 14, 18, 7, None), strict=True))
REQUESTS = {"ID": 16, "BOTTLE": 20, "KIND": 10, "WHAT": 48, "WHY": None}
"""Columns with their widths, so that nothing moves while it is read; the last one is as wide as need be."""
VERDICTS = {"allowed": "green", "refused": "red", "reset": "red", "asked": "yellow", "redacted": "yellow"}
STATES = {"healthy": "green", "up": "green", "starting": "yellow", "degraded": "yellow"}


class Ask(ModalScreen[str | None]):
    """One line of text from the operator; nothing where it is left with Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back")]
    CSS = """
    Ask { align: center middle; }
    Ask > Vertical { width: 80%; height: auto; border: round $accent; padding: 1 2; background: $surface; }
    """

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question, and a line to answer on."""
        with Vertical():
            yield Label(Text(self._question))
            yield Input()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter: what was written is the answer."""
        self.dismiss(event.value)

    def action_leave(self) -> None:
        """Escape: there is no answer."""
        self.dismiss(None)


class Page(App[None]):
    """The page. All that it shows an agent may have written: it is shown as text, without control characters."""

    TITLE = "bottles"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #bottles { height: 30%; border: round $accent; }
    #requests { height: 30%; border: round $warning; }
    #flows { height: 1fr; border: round $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "approve", "approve / answer"),
        Binding("d", "deny", "deny"),
        Binding("h", "allow", "allow a host"),
        Binding("k", "kill_switch", "kill switch"),
        Binding("x", "down", "take down"),
        Binding("r", "refresh", "refresh"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, backend: BottleBackend, notify: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._backend, self._notify_command = backend, notify
        self._found: list[Status] = []
        self._waiting: list[dict[str, Any]] = []
        self._told: set[str] = set()
        self._followed: dict[str, Worker[None]] = {}

    def compose(self) -> ComposeResult:
        """Three parts, one above the other."""
        yield Header(show_clock=False)
        with Vertical():
            yield DataTable(id="bottles", cursor_type="row")
            yield DataTable(id="requests", cursor_type="row")
            yield RichLog(id="flows", markup=False, max_lines=1000, wrap=False)
        with Horizontal():
            yield Footer()

    def on_mount(self) -> None:
        """Columns and titles, and the first look."""
        for identity, title, columns in (("#bottles", "bottles", BOTTLES), ("#requests", "waiting for you", REQUESTS)):
            table = self.query_one(identity, DataTable)
            table.border_title = title
            for name, width in columns.items():
                table.add_column(name, width=width)
        self.query_one("#flows", RichLog).border_title = "requests of the agents"
        self.set_interval(EVERY_S, self.look)
        self.look()

    @work(thread=True, exclusive=True, group="look")
    def look(self) -> None:
        """Ask the engine, and the bundles that run, and show the answers."""
        try:
            objects = self._backend.running(operator=state.operator(), containers_alone=True)
            waiting = []
            for slug in bottles.up_now(objects):
                waiting += [{"bottle": slug, **each} for each in self._requests_of(slug)]
            found = statuses(objects, health_of(objects, self._backend.in_bundle))
        except LauncherError as error:
            self.call_from_thread(self.notify, str(error), severity="error")
            return
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._show, found, waiting)

    def _requests_of(self, slug: str) -> list[dict[str, Any]]:
        try:
            return bottles.requests_of(self._backend, slug)
        except LauncherError:  # It starts, or it stops.
            return []

    def _show(self, found: list[Status], waiting: list[dict[str, Any]]) -> None:
        self._found, self._waiting = found, waiting
        self._fill("#bottles", [_cells(each) for each in found])
        columns = [
            (each["id"], each["bottle"], each.get("kind"), each.get("text"), each.get("reason")) for each in waiting
        ]
        self._fill("#requests", [[_text(cell or "") for cell in cells] for cells in columns])
        for each in waiting:
            if each["id"] not in self._told:
                self._told.add(each["id"])
                self.bell()
                tell_person(each["bottle"], each, self._notify_command)
        up = {each.slug for each in found if each.state not in ("ended", "bundle ended", "leftover")}
        for slug in up - self._followed.keys():
            self._followed[slug] = self.follow(slug)
        for slug in self._followed.keys() - up:
            self._followed.pop(slug).cancel()

    def _fill(self, identity: str, rows: list[list[Text]]) -> None:
        """Put rows into a table; the cursor stays on its line."""
        table = self.query_one(identity, DataTable)
        line = table.cursor_row
        table.clear()
        for cells in rows:
            table.add_row(*cells)
        if rows:
            table.move_cursor(row=min(line, len(rows) - 1))

    @work(thread=True, group="follow")
    def follow(self, slug: str) -> None:
        """Show a bottle's audit as it is written."""
        worker = get_current_worker()
        with lines_of(self._backend.in_bundle(slug, "bottle-audit", "--follow", "--json")) as lines:
            for line in lines:
                if worker.is_cancelled:
                    return
                if text := _flow(slug, line):
                    self.call_from_thread(self.query_one("#flows", RichLog).write, text)

    def _request(self) -> dict[str, Any] | None:
        line = self.query_one("#requests", DataTable).cursor_row
        return self._waiting[line] if 0 <= line < len(self._waiting) else None

    def _bottle(self) -> str | None:
        line = self.query_one("#bottles", DataTable).cursor_row
        return self._found[line].slug if 0 <= line < len(self._found) else None

    def action_refresh(self) -> None:
        """Look now."""
        self.look()

    def action_approve(self) -> None:
        """Say yes to the request under the cursor; a question is answered in words."""
        request = self._request()
        if request is None:
            self.notify("nothing waits for you")
        elif request.get("kind") == "question":
            answer = partial(self._answered, request)
            self.push_screen(Ask(printable(str(request.get("text", "")))), answer)
        else:
            self.order(request["bottle"], "bottle-approve", str(request["id"]))

    def _answered(self, request: dict[str, Any], text: str | None) -> None:
        if text:
            self.order(request["bottle"], "supervise-operator", "answer", str(request["id"]), text)

    def action_deny(self) -> None:
        """Say no to the request under the cursor."""
        if request := self._request():
            self.order(request["bottle"], "supervise-operator", "deny", str(request["id"]))

    def action_allow(self) -> None:
        """Let the bottle under the cursor reach a host."""
        if slug := self._bottle():
            self.push_screen(Ask(f"Which host may {slug} reach for an hour?"), partial(self._allowed, slug))

    def _allowed(self, slug: str, host: str | None) -> None:
        if host:
            self.order(slug, "bottle-approve", "host", host)

    def action_kill_switch(self) -> None:
        """Let nothing out of the bottle under the cursor any more."""
        if slug := self._bottle():
            self.order(slug, "bottle-kill-switch", "on")

    def action_down(self) -> None:
        """Take the bottle under the cursor down, if its name is written out."""
        if slug := self._bottle():
            self.push_screen(Ask(f"Take {slug} down? Write its name."), partial(self._down, slug))

    def _down(self, slug: str, name: str | None) -> None:
        if name == slug:
            self.taken_down(slug)

    @work(thread=True, group="orders")
    def taken_down(self, slug: str) -> None:
        """Take a bottle down, with what is unsaved in it kept."""
        from launcher.work import settled  # noqa: PLC0415 -- `work` is textual's here

        self._attempt(lambda: settled(self._backend, slug, lambda line: self.call_from_thread(self.notify, line)))
        self._attempt(lambda: self._backend.stop(slug))

    @work(thread=True, group="orders")
    def order(self, slug: str, *command: str) -> None:
        """Give an order to a bundle, and tell what it said."""

        def give() -> None:
            said = run(self._backend.in_bundle(slug, *command), check=False)
            if said.code:
                raise LauncherError(printable(said.stderr.strip()))
            words = printable(said.stdout.strip()) or "done"
            self.call_from_thread(partial(self.notify, words, markup=False))

        self._attempt(give)

    def _attempt(self, give: Callable[[], object]) -> None:
        try:
            give()
        except LauncherError as error:
            self.call_from_thread(partial(self.notify, str(error), severity="error", markup=False))
        self.call_from_thread(self.look)


def _text(content: object, style: str = "") -> Text:
    return Text(printable(str(content)).replace("\n", " "), style=style)


def _cells(status: Status) -> list[Text]:
    cells = [_text(cell) for cell in row(status)]
    cells[2].stylize(STATES.get(status.state, "red"))
    return cells


def _flow(slug: str, line: str) -> Text | None:
    """A line of the audit, for a person."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    verdict = str(entry.get("verdict", ""))
    what = " ".join(str(entry[key]) for key in ("method", "host", "path") if entry.get(key))
    return Text.assemble(
        (f"{str(entry.get('timestamp', ''))[11:19]} ", "dim"),
        (f"{slug:16} ", "cyan"),
        (f"{verdict:9}", VERDICTS.get(verdict, "")),
        f"{entry.get('daemon', ''):10} ",
        printable(f"{what or entry.get('event', '')}").replace("\n", " "),
        (f"  {printable(str(entry['reason']))}" if entry.get("reason") else "", "dim"),
    )
