"""What every row shares: sides in processes, order, statistics, gates, results, tables."""
