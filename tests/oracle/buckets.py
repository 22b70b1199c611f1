"""Days, weeks and months of a time zone by their definition, read off the local clock minute by minute."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
# Two midnights, none, one that is gone back over, a day that is left out, offsets of half hours and quarters.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Havana",
    "America/St_Johns",
    "America/Sao_Paulo",
    "America/Asuncion",
    "America/Scoresbysund",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Auckland",
)


def first_day(name: str, day: date) -> date:
    """First date of the day, week or month."""
    if name == "1w":
        while day.weekday() != 0:
            day -= timedelta(days=1)
    if name == "1mo":
        while day.day != 1:
            day -= timedelta(days=1)
    return day


@cache
def beginning(zone: str, day: date) -> datetime:
    """The first minute whose local date is the day or a later one."""
    local = ZoneInfo(zone)
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while at.astimezone(local).date() < day:
        at += HOUR
    # A minute of the day may have come and gone within the hours passed: look at each minute of them.
    at -= 3 * HOUR
    while at.astimezone(local).date() < day:
        at += MINUTE
    return at


def bucket_of(name: str, zone: str, at: datetime) -> datetime:
    """Start of the day, week or month that holds a moment."""
    day = at.astimezone(ZoneInfo(zone)).date() + timedelta(days=2)
    while beginning(zone, first_day(name, day)) > at:
        day -= timedelta(days=1)
    return beginning(zone, first_day(name, day))
