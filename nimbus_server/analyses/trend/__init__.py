"""Trends: numbers over time, of QueryTrend."""
