"""Questions about events: read from requests, asked as SQL over the relation `src`, answered from its rows."""
